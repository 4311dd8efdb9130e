"""A rule that the router cannot work with refuses what it is for, and nothing else."""

import pytest

from ztunnel.control.routes.checked_rule import checked
from ztunnel.l7.routing.route import check
from ztunnel.model.route import RouteSource, Rule
from ztunnel.model.route_action import Destination, Edits, Forward, HeaderEdits, Redirect
from ztunnel.model.route_match import Match, TextKind, TextMatch
from ztunnel.model.service import ServiceName

SOURCE = RouteSource("VirtualService", "shop", "web")
FORWARD = Forward((Destination(ServiceName("shop", "web.shop.svc.cluster.local")),))
A, BAD = Match(path=TextMatch(TextKind.PREFIX, "/a")), Match(path=TextMatch(TextKind.REGEX, "("))


def test_one_that_can_be_worked_with_stays_the_very_rule():
    rule, told = Rule("r", SOURCE, FORWARD, (A,)), []
    assert checked(rule, 503, told.append) is rule
    assert told == []


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (Rule("r", SOURCE, Redirect(authority="a b"), (A,)), "a redirect is to a host"),
        (
            Rule("r", SOURCE, FORWARD, (A,), Edits(HeaderEdits(remove=("content-length",)))),
            "cannot be changed",
        ),
        (Rule("r", SOURCE, FORWARD, (BAD, A)), "not a regular expression"),
    ],
)
def test_what_cannot_be_done_is_refused_where_it_would_be_done(rule, why):
    told = []
    found = checked(rule, 503, told.append)
    (to,) = found.action.destinations
    assert (found.matches, found.name, to.refusal.status) == ((A,), "r", 503)
    assert why in to.refusal.reason
    assert told == [to.refusal.reason]
    check(found)


def test_one_that_nobody_can_be_asked_for_is_left_out_and_one_for_everybody_stays_so():
    told = []
    assert checked(Rule("r", SOURCE, FORWARD, (BAD,)), 500, told.append) is None
    found = checked(Rule("r", SOURCE, Redirect(authority="a b")), 500, told.append)
    assert (found.matches, found.action.destinations[0].refusal.status, len(told)) == ((), 500, 2)
