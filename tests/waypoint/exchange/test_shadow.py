"""Copies as they are sent; `test_plans` has them beside their requests."""

from __future__ import annotations

import pytest

from ztunnel.l7.request import Request
from ztunnel.l7.routing.plan import Plan
from ztunnel.model.route_action import Destination
from ztunnel.model.service import ServiceName
from ztunnel.waypoint.exchange.shadow import SECONDS, Nobody, copied, plan_of

COPY = Destination(ServiceName("shop", "copy"))


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        (b"a", b"a-shadow"),
        (b"a.b:80", b"a.b-shadow:80"),
        (b"[fd00::1]", b"[fd00::1]-shadow"),
        (b"[fd00::1]:80", b"[fd00::1]-shadow:80"),
    ],
)
def test_servers_can_tell_a_copy(authority: bytes, expected: bytes) -> None:
    request = Request(b"POST", authority, b"/a", [(b"a", b"b")])
    request.length = 3
    made = copied(request)
    assert made.authority == expected
    assert (made.method, made.path, made.fields, made.length) == (b"POST", b"/a", [(b"a", b"b")], 3)
    assert made.fields is not request.fields


def test_a_copy_has_the_time_of_its_request_or_one_of_its_own() -> None:
    plan = Plan("r")
    assert plan_of(plan, COPY).timeout_seconds == SECONDS
    plan.timeout_seconds = 2
    made = plan_of(plan, COPY)
    assert (made.timeout_seconds, made.destination, made.retry) == (2, COPY, None)


def test_nobody_says_what_is_taken() -> None:
    nobody = Nobody()
    nobody.held = 5
    nobody.taken(3)
    assert (nobody.held, nobody.unsent()) == (2, 0)
