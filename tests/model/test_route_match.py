"""What a rule can ask of a request, and what makes no sense."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ztunnel.model.route_match import ClaimMatch, FieldMatch, Match, TextKind, TextMatch

V1 = TextMatch(TextKind.EXACT, "v1")
SEGMENTS = TextMatch(TextKind.SEGMENTS, "/a")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: TextMatch(TextKind.PRESENT, "x"), "without a text"),
        (lambda: TextMatch(TextKind.REGEX, "x", ignore_case=True), r"\(\?i\)"),
        (lambda: TextMatch(TextKind.SEGMENTS, "a"), "begin with a slash"),
        (lambda: TextMatch(TextKind.SEGMENTS, ""), "begin with a slash"),
        (lambda: TextMatch(TextKind.SEGMENTS, "/a/"), "end with none"),
        (lambda: FieldMatch("", V1), "has a name"),
        (lambda: FieldMatch("x", SEGMENTS), "only a path has segments"),
        (lambda: ClaimMatch((), V1), "a claim has a name"),
        (lambda: ClaimMatch(("group", ""), V1), "a claim has a name"),
        (lambda: Match(method=SEGMENTS), "only a path has segments"),
        (lambda: Match(scheme=SEGMENTS), "only a path has segments"),
        (lambda: Match(authority=SEGMENTS), "only a path has segments"),
        (lambda: Match(headers=(FieldMatch("X-User", V1),)), "small letters"),
        (lambda: Match(headers=(FieldMatch(":path", V1),)), "no pseudo-header"),
    ],
)
def test_it_makes_no_sense(make: Callable[[], object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        make()


def test_a_path_has_segments_and_a_parameter_any_letters() -> None:
    for text in ("/", "/a", "/a/b", "//a"):
        assert Match(path=TextMatch(TextKind.SEGMENTS, text)).path
    assert Match(query=(FieldMatch("User", V1),)).query


@pytest.mark.parametrize(
    ("ports", "port", "expected"),
    [((), 80, True), ((80,), 80, True), ((80, 81), 81, True), ((80,), 81, False)],
)
def test_a_match_is_one_at_its_ports(ports: tuple[int, ...], port: int, expected: bool) -> None:
    assert Match(ports=ports).is_at(port) is expected
