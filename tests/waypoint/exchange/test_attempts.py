"""How often a request is tried, and what the log says of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.waypoint.rig import Clock
from ztunnel.l7.reply import (
    CONNECT_FAILED,
    NO_HEALTHY_UPSTREAM,
    REMOTE_RESET,
    TERMINATED,
    TRY_TIMEOUT,
    Reply,
)
from ztunnel.l7.routing.plan import Plan
from ztunnel.l7.routing.retry import DEFAULT, Retries
from ztunnel.model.route_policy import ISTIO_RETRY, Retry, RetryOn
from ztunnel.waypoint.exchange.attempts import NONE, Attempts
from ztunnel.waypoint.exchange.deadlines import Timer


class Way:
    """A way with so much room for retries."""

    def __init__(self, room: int = 9) -> None:
        self.clock = Clock()
        self.room = room

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return self.clock.after(seconds, callback)

    def wait_of(self, retries: Retries, at_once: bool) -> float:
        if not at_once:
            self.room -= 1
        if self.room < 0:
            return -1.0
        retries.next_wait(self)
        return 0.0 if at_once else 0.5

    def random(self) -> float:
        return 1.0


ON_RESET = Retry(2, frozenset((RetryOn.RESET,)))


def attempts(retry: Retry | None, room: int = 9) -> Attempts:
    made = Attempts(Way(room))
    made.allow(Plan("r", retry))
    return made


@pytest.mark.parametrize(
    ("retry", "reply", "unsent", "stale", "expected"),
    [
        (DEFAULT, CONNECT_FAILED, True, False, 0),
        (DEFAULT, CONNECT_FAILED, False, False, NONE),
        (DEFAULT, REMOTE_RESET, True, False, 0),
        (DEFAULT, TERMINATED, False, True, 0),
        (DEFAULT, TERMINATED, False, False, NONE),
        (DEFAULT, NO_HEALTHY_UPSTREAM, True, True, NONE),
        (None, CONNECT_FAILED, True, False, NONE),
        (None, TERMINATED, False, True, NONE),
        (ISTIO_RETRY, CONNECT_FAILED, False, False, 0.5),
        (ISTIO_RETRY, REMOTE_RESET, True, False, 0),
        (ISTIO_RETRY, REMOTE_RESET, False, False, NONE),
        (ON_RESET, REMOTE_RESET, False, False, 0.5),
        (ON_RESET, TERMINATED, False, False, 0.5),
        (ON_RESET, TRY_TIMEOUT, False, False, 0.5),
    ],
)
def test_a_try_that_was_lost(
    retry: Retry | None, reply: Reply, unsent: bool, stale: bool, expected: float
) -> None:
    assert attempts(retry).after_loss(reply, unsent, stale) == expected


def test_when_there_are_no_more_the_log_says_so() -> None:
    made = attempts(ON_RESET)
    assert [made.after_loss(TERMINATED, False, False) for _ in range(3)] == [0.5, 0.5, NONE]
    assert made.flags == ["URX"]
    made = attempts(ON_RESET, room=1)
    assert [made.after_loss(TERMINATED, False, False) for _ in range(2)] == [0.5, NONE]
    assert made.flags == ["UO"]


def test_a_response_that_is_a_failure() -> None:
    made = attempts(Retry(1, frozenset((RetryOn.SERVER_ERROR,))))
    assert made.after_response(((b":status", b"200"),)) == NONE
    assert made.flags == []
    assert made.after_response(((b":status", b"503"),)) == 0.5
    assert made.after_response(((b":status", b"503"),)) == NONE
    assert made.flags == ["URX"]


def test_a_body_is_kept_where_it_may_be_needed_again() -> None:
    assert not Attempts(Way()).allow(Plan("r", DEFAULT))
    assert not Attempts(Way()).allow(Plan("r"))
    assert Attempts(Way()).allow(Plan("r", ISTIO_RETRY))


def test_time_is_given_from_when_the_request_is_whole() -> None:
    way, called, plan = Way(), list[str](), Plan("r")
    plan.timeout_seconds, plan.try_timeout_seconds = 3, 1
    made = Attempts(way)
    made.begin(lambda: called.append("never"), lambda: called.append("never"))
    made.allow(plan)
    made.begin(lambda: called.append("all"), lambda: called.append("try"))
    made.delay(0.5, lambda: called.append("delayed"))
    way.clock.sleep(2)
    assert called == ["delayed", "try"]
    made.end_try()
    made.end()
    way.clock.sleep(9)
    assert called == ["delayed", "try"]
    assert made.flags == ["DI"]
