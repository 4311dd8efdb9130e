"""A rule and one of its matches, compiled: what becomes of a request that they are for."""

from __future__ import annotations

from bisect import bisect_right

from ztunnel.l7.chance import Rng
from ztunnel.l7.routing.comparison import Conditions
from ztunnel.l7.routing.cors import CorsAnswers
from ztunnel.l7.routing.edits import MessageEdits
from ztunnel.l7.routing.location import Location
from ztunnel.l7.routing.path_edit import CompiledPathEdit
from ztunnel.model.route import Rule
from ztunnel.model.route_action import Destination, Forward, Redirect
from ztunnel.model.route_match import Match

EVERY = Match()
"""The match of a rule that has none."""


class Target:
    """One destination of a rule.

    Attributes:
        edits: of headers, after the rule's.
        authority: that the request gets; empty: its own.
    """

    __slots__ = ("authority", "destination", "edits")

    def __init__(self, destination: Destination, authority: str) -> None:
        self.destination = destination
        self.edits = MessageEdits(destination.edits)
        self.authority = (authority or destination.authority).encode()


class Route:
    """What is decided by.

    Attributes:
        name: the rule's, and the match's: ROUTE_NAME of the log.
        rule, match: that it comes from.
        edits: of headers.
        path: another path; None: the request's own.
        cors: how it is shared with other origins; None: that is the server's.
        location: where it is redirected to; None: it is not.
        targets: where it is sent; none: nowhere.
    """

    __slots__ = (
        "_shares", "conditions", "cors", "edits", "location", "match", "name", "path", "rule", "targets",
    )  # fmt: skip

    def __init__(self, rule: Rule, match: Match) -> None:
        """Raises ValueError, with a reason: something in it cannot be done."""
        self.rule = rule
        self.match = match
        self.name = f"{rule.name}.{match.name}" if match.name else rule.name
        self.conditions = Conditions(match)
        self.edits = MessageEdits(rule.edits)
        rewrite, action = rule.rewrite, rule.action
        self.path: CompiledPathEdit | None = None
        if rewrite is not None and rewrite.path is not None:
            self.path = CompiledPathEdit(rewrite.path, match.path)
        self.cors = CorsAnswers(rule.cors) if rule.cors is not None else None
        self.location = Location(action, match.path) if isinstance(action, Redirect) else None
        self.targets: list[Target] = []
        self._shares: list[int] = []
        if isinstance(action, Forward):
            authority = rewrite.authority if rewrite is not None else ""
            self._share(action, authority)

    def _share(self, action: Forward, authority: str) -> None:
        total, alone = 0, len(action.destinations) == 1
        for destination in action.destinations:
            weight = 1 if alone else destination.weight
            if weight:
                total += weight
                self._shares.append(total)
                self.targets.append(Target(destination, authority))

    def choose(self, rng: Rng) -> Target:
        """One of the targets, by weight."""
        if len(self.targets) == 1:
            return self.targets[0]
        return self.targets[bisect_right(self._shares, int(rng.random() * self._shares[-1]))]


def routes_of(rule: Rule, port: int) -> list[Route]:
    """Those of a rule for requests to that port. Raises ValueError, with a reason."""
    return [Route(rule, match) for match in rule.matches or (EVERY,) if match.is_at(port)]


def check(rule: Rule) -> None:
    """Raises ValueError, with a reason: something in the rule cannot be done, whatever the port."""
    for match in rule.matches or (EVERY,):
        Route(rule, match)
