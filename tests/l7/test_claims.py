"""Claims as conditions ask for them."""

from __future__ import annotations

import pytest

from ztunnel.l7.claims import NOBODY, Claims

PAYLOAD = {
    "iss": "i", "sub": "s", "aud": ["a", "b"], "azp": "p", "scope": "read  write", "permission": "x",
    "roles": "admin user", "groups": ["g1", 2, "g2"], "n": 7, "yes": True, "none": None,
    "realm": {"roles": ["r1", "r2"], "scope": "a b", "deep": {"x": "y"}}, "a.b": "dot",
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "texts"),
    [
        (("sub",), ("s",)),
        (("groups",), ("g1", "g2")),
        (("scope",), ("read", "write")),
        (("permission",), ("x",)),
        (("roles",), ("admin user",)),
        (("realm", "roles"), ("r1", "r2")),
        (("realm", "scope"), ("a b",)),
        (("realm", "deep", "x"), ("y",)),
        (("realm",), ()),
        (("realm", "missing"), ()),
        (("sub", "x"), ()),
        (("groups", "0"), ()),
        (("a.b",), ("dot",)),
        (("a", "b"), ()),
        (("n",), ()),
        (("yes",), ()),
        (("none",), ()),
        (("missing",), ()),
    ],
)
def test_a_claim_is_found_by_its_path(path: tuple[str, ...], texts: tuple[str, ...]) -> None:
    assert Claims(PAYLOAD).find(path) == texts


def test_who_it_is_and_for_whom() -> None:
    found = Claims(PAYLOAD)
    assert (found.principal, found.audiences, found.presenter) == ("i/s", ("a", "b"), "p")
    assert Claims({"aud": "one"}).audiences == ("one",)


@pytest.mark.parametrize(
    "payload", [{}, {"iss": "i"}, {"sub": "s"}, {"iss": "", "sub": "s"}, {"iss": 1, "sub": "s"}]
)
def test_half_a_principal_is_none(payload: dict[str, object]) -> None:
    assert Claims(payload).principal == ""


def test_more_claims_are_lists_where_a_rule_says_so() -> None:
    assert Claims(PAYLOAD, ("roles",)).find(("roles",)) == ("admin", "user")


def test_nobody_has_no_claims() -> None:
    assert not NOBODY
    assert (NOBODY.principal, NOBODY.audiences, NOBODY.presenter, NOBODY.find(("sub",))) == ("", (), "", ())
