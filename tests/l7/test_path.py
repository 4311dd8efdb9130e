"""Paths in one spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.l7.path import normalize


@pytest.mark.parametrize(
    ("untrusted", "expected"),
    [
        (b"/", b"/"),
        (b"/a/b", b"/a/b"),
        (b"/a/./b", b"/a/b"),
        (b"/a/../b", b"/b"),
        (b"/../../a", b"/a"),
        (b"/a/b/..", b"/a/"),
        (b"/a/.", b"/a/"),
        (b"//admin", b"//admin"),
        (b"/a//../b", b"/a/b"),
        (b"/%61dmin", b"/admin"),
        (b"/%2e%2e/a", b"/a"),
        (b"/a%2fb", b"/a%2Fb"),
        (b"/a%2Fb", b"/a%2Fb"),
        (b"/a\\..\\b", b"/b"),
        (b"/a?b=/../c", b"/a?b=/../c"),
        (b"/a;b=c/d", b"/a;b=c/d"),
        (b"/..;/a", b"/..;/a"),
        (b"/a#b", None),
        (b"/a%23b", b"/a%23b"),
        (b"/%00", None),
        (b"/a%", None),
        (b"/a%zz", None),
        (b"/a b", None),
        (b"/\xc3\xa9", None),
        (b"/%c3%a9", b"/%C3%A9"),
        (b"/...", b"/..."),
        (b"/.hidden", b"/.hidden"),
    ],
)
def test_a_path_has_one_spelling_or_none(untrusted: bytes, expected: bytes | None) -> None:
    assert normalize(untrusted) == expected


@given(
    st.lists(st.sampled_from([b"/", b".", b"..", b"a", b"%2e", b"%2F", b"%25", b"\\", b"?", b";", b"%41"]))
)
def test_it_stays_what_it_is(parts: list[bytes]) -> None:
    once = normalize(b"/" + b"".join(parts))
    assert once is not None
    assert normalize(once) == once
    path = once.partition(b"?")[0]
    assert not {b".", b".."} & set(path.split(b"/"))
