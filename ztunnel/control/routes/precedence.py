"""The rules of several objects for one service, in the order in which they are asked.

HTTPRoutes and GRPCRoutes are one list (at a port both are never: `specificity.py`), in the order that the
Gateway API gives to their matches (HTTPRouteRule `matches`; regular expressions last, as with Istio).
VirtualServices follow, the oldest first, each in its own order. Where there are several sources, what takes
every request goes behind all that does not, as istiod has it of VirtualServices that share a host
(istio/istio#59484, route.SortVHostRoutes)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from ztunnel.control.routes.route_parts import NamedRule
from ztunnel.control.routes.unreachable import is_catch_all
from ztunnel.model.route import ConnectionRule, Rule
from ztunnel.model.route_match import Match, TextKind
from ztunnel.state.meta import Meta

_RANKS: Final = {TextKind.EXACT: 0, TextKind.PREFIX: 1, TextKind.SEGMENTS: 1, TextKind.REGEX: 2}
_EVERY: Final = Match()


@dataclass(frozen=True, slots=True)
class Source:
    """The rules of one object that are for a service, at `ports` of it, at all where there are none. `first`:
    they come before those of other namespaces. `sorted`: by their matches, as the Gateway API has it."""

    meta: Meta
    rules: tuple[Rule, ...]
    ports: tuple[int, ...] = ()
    first: bool = False
    sorted: bool = False
    connections: tuple[NamedRule, ...] = ()

    @property
    def age(self) -> tuple[str, str, str]:
        """The oldest first; one without a date is as young as can be."""
        return self.meta.created or "~", self.meta.namespace, self.meta.name


def ordered(sources: Iterable[Source]) -> tuple[Rule, ...]:
    """All their rules."""
    every = sorted(sources, key=lambda one: (not one.first, *one.age))
    by_match = [one for one in every if one.sorted]
    others = [one for one in every if not one.sorted]
    rules = [*_by_match(by_match), *(rule for one in others for rule in _until_all(one.rules))]
    return tuple(_all_last(rules) if len(every) > 1 else _joined(rules))


def connections(sources: Iterable[Source], host: str) -> tuple[ConnectionRule, ...]:
    """The rules for connections to the service with that host: those of TCPRoutes and TLSRoutes, then of
    VirtualServices, each kind the oldest first."""
    every = sorted(sources, key=lambda one: (not one.sorted, not one.first, *one.age))
    return tuple(
        replace(each.rule, ports=one.ports) if one.ports else each.rule
        for one in every
        for each in one.connections
        if each.is_for(host)
    )


def _by_match(sources: list[Source]) -> list[Rule]:
    single = [
        (one.first, replace(rule, matches=(replace(match, ports=one.ports),)))
        for one in sources
        for rule in one.rules
        for match in rule.matches or (_EVERY,)
    ]
    single.sort(key=lambda pair: (not pair[0], _rank(pair[1].matches[0])))
    return [rule for _, rule in single]


def _rank(match: Match) -> tuple[int, ...]:
    path = match.path
    return (
        _RANKS[path.kind] if path is not None else len(_RANKS),
        -len(path.text) if path is not None else 0,
        match.method is None,
        -len(match.headers),
        -len(match.query),
    )


def _until_all(rules: tuple[Rule, ...]) -> Iterator[Rule]:
    """Those of one VirtualService up to the one that takes every request."""
    for rule in rules:
        yield rule
        if not rule.matches or any(is_catch_all(match) and not match.ports for match in rule.matches):
            return


def _all_last(rules: list[Rule]) -> Iterator[Rule]:
    """What takes every request goes behind the others."""
    last: list[Rule] = []
    for rule in rules:
        takes = [match for match in rule.matches if is_catch_all(match)]
        left = tuple(match for match in rule.matches if not is_catch_all(match))
        if takes or not rule.matches:
            last.append(replace(rule, matches=tuple(takes)))
        if left:
            yield replace(rule, matches=left)
    yield from last


def _joined(rules: list[Rule]) -> Iterator[Rule]:
    """Neighbours that differ in nothing but their matches are one rule."""
    before: Rule | None = None
    for rule in rules:
        if before is not None and before.matches and rule.matches and _alike(before, rule):
            before = replace(before, matches=(*before.matches, *rule.matches))
        else:
            if before is not None:
                yield before
            before = rule
    if before is not None:
        yield before


def _alike(one: Rule, other: Rule) -> bool:
    return bool(one.name) and replace(one, matches=()) == replace(other, matches=())
