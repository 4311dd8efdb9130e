"""Rules that the router of waypoints can work with: one that it cannot would take its service's others with
it.

What readers accept it mostly can; what is left (a header that says how a message is written is not to be
changed, say) is refused in the place of just the requests that the rule is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ztunnel.l7.routing.route import check
from ztunnel.model.route import Rule
from ztunnel.model.route_action import Destination, Forward, Refusal
from ztunnel.model.service import ServiceName


def checked(rule: Rule, status: int, note: Callable[[str], None]) -> Rule | None:
    """The rule, or in its place one that answers with this status, 500 or 503; None where its matches cannot
    be asked for, so that it is for nobody. `note` is told why."""
    try:
        check(rule)
    except ValueError as error:
        note(str(error))
        nowhere = Destination(ServiceName(rule.source.namespace, ""), refusal=Refusal(status, str(error)))
        bare = Rule(rule.name, rule.source, Forward((nowhere,)))
        matches = tuple(match for match in rule.matches if _can_be_asked(replace(bare, matches=(match,))))
        return replace(bare, matches=matches) if matches or not rule.matches else None
    return rule


def _can_be_asked(rule: Rule) -> bool:
    try:
        check(rule)
    except ValueError:
        return False
    return True
