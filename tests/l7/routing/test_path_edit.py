"""Other paths: Istio's rewrites, and the table of HTTPRoute's ReplacePrefixMatch."""

from __future__ import annotations

import pytest

from ztunnel.l7.routing.path_edit import CompiledPathEdit, edited
from ztunnel.model.route_action import PathEdit, PathEditKind
from ztunnel.model.route_match import TextKind, TextMatch


def made(edit: PathEdit, match: TextMatch | None, target: bytes) -> bytes | None:
    return edited(CompiledPathEdit(edit, match), target)


def prefix(text: str) -> TextMatch:
    return TextMatch(TextKind.PREFIX, text)


@pytest.mark.parametrize(
    ("match", "text", "target", "expected"),
    [
        (prefix("/old"), "/new", b"/old/a?b=c", b"/new/a?b=c"),
        (prefix("/old"), "/", b"/old/a", b"//a"),
        (prefix("/old/"), "/", b"/old/a", b"/a"),
        (prefix("/old"), "/new", b"/older", b"/newer"),
        (TextMatch(TextKind.PREFIX, "/OLD", ignore_case=True), "/new", b"/oLd/a", b"/new/a"),
        (TextMatch(TextKind.EXACT, "/old"), "/new", b"/old?x", b"/new?x"),
        (TextMatch(TextKind.REGEX, "/o.*"), "/new", b"/old/a?x", b"/new?x"),
        (TextMatch(TextKind.SEGMENTS, "/old"), "/new", b"/old/a", b"/new/a"),
        (None, "/v2/", b"/a", b"/v2/a"),
        (prefix("/old"), "new", b"/old/a", None),
        (prefix("/old"), "/new/../..", b"/old/a", b"/a"),
    ],
)
def test_what_matched_is_replaced(
    match: TextMatch | None, text: str, target: bytes, expected: bytes | None
) -> None:
    assert made(PathEdit(PathEditKind.MATCHED, text), match, target) == expected


@pytest.mark.parametrize(
    ("segments", "text", "path", "expected"),
    [
        ("/foo", "/xyz", b"/foo/bar", b"/xyz/bar"),
        ("/foo", "/xyz/", b"/foo/bar", b"/xyz/bar"),
        ("/foo", "/xyz", b"/foo", b"/xyz"),
        ("/foo", "/xyz", b"/foo/", b"/xyz/"),
        ("/foo", "", b"/foo/bar", b"/bar"),
        ("/foo", "", b"/foo/", b"/"),
        ("/foo", "", b"/foo", b"/"),
        ("/foo", "/", b"/foo/", b"/"),
        ("/foo", "/", b"/foo", b"/"),
        ("/", "/xyz", b"/bar", b"/xyz/bar"),
        ("/service", "/api/service/", b"/service/version", b"/api/service/version"),
        ("/api/foo", "/", b"/api/foo/bar", b"/bar"),
    ],
)
def test_segments_are_replaced_as_the_gateway_api_says(
    segments: str, text: str, path: bytes, expected: bytes
) -> None:
    match = TextMatch(TextKind.SEGMENTS, segments)
    assert made(PathEdit(PathEditKind.SEGMENTS, text), match, path + b"?q") == expected + b"?q"


def test_a_whole_path_and_what_an_expression_finds() -> None:
    assert made(PathEdit(PathEditKind.FULL, "/x"), None, b"/a/b?q=1") == b"/x?q=1"
    assert made(PathEdit(PathEditKind.FULL, "/x?r=2"), None, b"/a/b?q=1") == b"/x?r=2"
    pattern = PathEdit(PathEditKind.REGEX, r"/\2/\1", "/users/([^/]+)/(.*)")
    assert made(pattern, None, b"/users/jason/cart?q") == b"/cart/jason?q"
    assert made(pattern, None, b"/other") == b"/other"


@pytest.mark.parametrize(
    ("edit", "match", "why"),
    [
        (PathEdit(PathEditKind.REGEX, r"\1", "a"), None, "0 groups"),
        (PathEdit(PathEditKind.REGEX, "a", "("), None, "missing"),
        (PathEdit(PathEditKind.SEGMENTS, "/a"), prefix("/b"), "PathPrefix"),
    ],
)
def test_what_makes_no_sense_is_refused(edit: PathEdit, match: TextMatch | None, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        CompiledPathEdit(edit, match)
