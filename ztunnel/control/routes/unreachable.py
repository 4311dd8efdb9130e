"""Rules and matches of a VirtualService that no request comes to, as Istio's analyzers find them (istio/istio
pkg/config/analysis/analyzers/virtualservice)."""

from __future__ import annotations

from collections.abc import Iterator

from ztunnel.control.routes.route_parts import Problem, Why
from ztunnel.model.route_match import Match, TextKind
from ztunnel.state.virtual_match import RequestMatch
from ztunnel.state.virtual_service import VirtualService


def unreachable(one: VirtualService) -> Iterator[Problem]:
    """One for each."""
    seen: list[tuple[int, RequestMatch]] = []
    closed = -1
    for number, rule in enumerate(one.http):
        field = f"http[{number}]"
        if closed >= 0:
            yield Problem(Why.UNREACHABLE, field, f"http[{closed}] is for everything: no request comes here")
            continue
        again = [_first(seen, each) for each in rule.matches]
        if rule.matches and None not in again:
            rules = ", ".join(
                f"http[{each}]" for each in sorted({each for each in again if each is not None})
            )
            yield Problem(
                Why.UNREACHABLE, field, f"{rules} has all of its matches before: no request comes here"
            )
        else:
            for index, found in enumerate(again):
                if found is not None:
                    text = f"http[{found}] has it before: it is never met here"
                    yield Problem(Why.INEFFECTIVE, f"{field}.match[{index}]", text)
        if not rule.matches or any(_takes_all(each) for each in rule.matches):
            closed = number
        seen += [(number, each) for each in rule.matches]


def _first(seen: list[tuple[int, RequestMatch]], one: RequestMatch) -> int | None:
    """The first rule whose match takes all that this one does."""
    return next((number for number, each in seen if _same(each, one)), None)


def _same(one: RequestMatch, other: RequestMatch) -> bool:
    ours, theirs = one.match, other.match
    return one.sources == other.sources and _nameless(ours) == _nameless(theirs)


def _nameless(match: Match) -> tuple[object, ...]:
    return (
        match.ports, match.path, match.method, match.scheme, match.authority, frozenset(match.headers),
        frozenset(match.query), frozenset(match.claims),
    )  # fmt: skip


def _takes_all(one: RequestMatch) -> bool:
    sources = one.sources
    mine = not sources.labels and not sources.namespace and not sources.gateways
    return mine and not one.match.ports and is_catch_all(one.match)


def is_catch_all(match: Match) -> bool:
    """Whether every request to its ports is met (istio/istio route.IsCatchAllRoute)."""
    if any((match.method, match.scheme, match.authority, match.headers, match.query, match.claims)):
        return False
    path = match.path
    if path is None:
        return True
    if path.kind in (TextKind.PREFIX, TextKind.SEGMENTS):
        return path.text in ("/", "")
    return path.kind is TextKind.REGEX and path.text == ".*"
