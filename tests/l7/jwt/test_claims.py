"""Claims as conditions ask for them."""

from __future__ import annotations

from typing import Any

import pytest

from ztunnel.l7.jwt.claims import NOBODY, claims_of, texts_of


@pytest.mark.parametrize(
    ("payload", "more", "claims"),
    [
        ({}, (), {}),
        ({"sub": "a b"}, (), {"sub": "a b"}),
        ({"scope": " read  write "}, (), {"scope": ["read", "write"]}),
        ({"scope": "", "permission": "x"}, (), {"scope": [], "permission": ["x"]}),
        ({"scope": ["a b"]}, (), {"scope": ["a b"]}),
        ({"scope": 7}, (), {"scope": 7}),
        ({"realm": {"scope": "a b"}}, (), {"realm": {"scope": "a b"}}),
        ({"roles": "a b", "scope": "c d"}, ("roles",), {"roles": ["a", "b"], "scope": ["c", "d"]}),
    ],
)
def test_lists_with_spaces_are_lists(
    payload: dict[str, Any], more: tuple[str, ...], claims: dict[str, Any]
) -> None:
    before = dict(payload)
    assert claims_of(payload, more) == claims
    assert payload == before


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("a", ("a",)),
        (["a", 1, "b", ["c"]], ("a", "b")),
        ([], ()),
        (1, ()),
        (None, ()),
        ({"a": "b"}, ()),
        (True, ()),
    ],
)
def test_texts_of_a_claim(value: Any, texts: tuple[str, ...]) -> None:
    assert texts_of(value) == texts


def test_nobody_has_no_claims() -> None:
    assert not NOBODY
