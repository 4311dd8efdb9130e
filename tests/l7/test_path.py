"""Paths in one spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.l7.path import SPELLINGS, decode_and_merge_slashes, merge_slashes, normalize


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


@pytest.mark.parametrize(
    ("path", "merged", "decoded"),
    [
        (b"/", b"/", b"/"),
        (b"/a/b", b"/a/b", b"/a/b"),
        (b"//admin", b"/admin", b"/admin"),
        (b"/a///b//", b"/a/b/", b"/a/b/"),
        (b"/a//b?c=d//e", b"/a/b?c=d//e", b"/a/b?c=d//e"),
        (b"/%2Fadmin", b"/%2Fadmin", b"/admin"),
        (b"/a%2Fb%5Cc", b"/a%2Fb%5Cc", b"/a/b/c"),
        (b"/a/..%2Fb", b"/a/..%2Fb", b"/b"),
        (b"/a%2F..%2F..%2Fb", b"/a%2F..%2F..%2Fb", b"/b"),
        (b"/a%252Fb", b"/a%252Fb", b"/a%252Fb"),
        (b"/a?b=%2F", b"/a?b=%2F", b"/a?b=%2F"),
        (b"*", b"*", b"*"),
    ],
)
def test_slashes_are_merged_and_decoded_where_that_is_asked_for(
    path: bytes, merged: bytes, decoded: bytes
) -> None:
    assert (merge_slashes(path), decode_and_merge_slashes(path)) == (merged, decoded)


@pytest.mark.parametrize("name", [name for name, respell in SPELLINGS.items() if respell])
@given(
    st.lists(st.sampled_from([b"/", b".", b"..", b"a", b"%2e", b"%2F", b"%5c", b"%25", b"\\", b"?", b";"]))
)
def test_a_spelling_is_one_also_then(name: str, parts: list[bytes]) -> None:
    base, respell = normalize(b"/" + b"".join(parts)), SPELLINGS[name]
    assert base is not None
    assert respell is not None
    once = respell(base)
    assert respell(once) == normalize(once) == once
    path = once.partition(b"?")[0]
    assert b"//" not in path
    assert not {b".", b".."} & set(path.split(b"/"))
