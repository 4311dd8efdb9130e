"""What is tried again, and when."""

from __future__ import annotations

from random import Random

import pytest

from tests.l7.hosts import endpoint
from ztunnel.l7.balancing.tried import Tried
from ztunnel.l7.routing.retry import DEFAULT, Budget, Loss, Retries
from ztunnel.model.route_policy import ISTIO_RETRY, Retry, RetryOn


def retries(*on: RetryOn, codes: tuple[int, ...] = ()) -> Retries:
    return Retries(Retry(2, frozenset(on), codes))


CONNECT, REFUSED, RESET, TIMEOUT = Loss


@pytest.mark.parametrize(
    ("on", "again"),
    [
        (RetryOn.SERVER_ERROR, {CONNECT, REFUSED, RESET, TIMEOUT}),
        (RetryOn.GATEWAY_ERROR, {CONNECT, REFUSED, RESET, TIMEOUT}),
        (RetryOn.RESET, {CONNECT, REFUSED, RESET, TIMEOUT}),
        (RetryOn.CONNECT_FAILURE, {CONNECT}),
        (RetryOn.REFUSED_STREAM, {REFUSED}),
        (RetryOn.RETRIABLE_4XX, set()),
        (RetryOn.GRPC_UNAVAILABLE, set()),
    ],
)
def test_losses_are_tried_again_as_the_rule_says(on: RetryOn, again: set[Loss]) -> None:
    assert {loss for loss in Loss if retries(on).after_loss(loss, unsent=False)} == again


@pytest.mark.parametrize("unsent", [True, False])
def test_what_was_not_sent_is_tried_again_by_default(unsent: bool) -> None:
    assert Retries(DEFAULT).after_loss(RESET, unsent) is unsent
    assert not Retries(None).after_loss(CONNECT, unsent=True)


@pytest.mark.parametrize(
    ("on", "status", "grpc", "expected"),
    [
        (RetryOn.SERVER_ERROR, 500, "", True),
        (RetryOn.SERVER_ERROR, 599, "", True),
        (RetryOn.SERVER_ERROR, 499, "", False),
        (RetryOn.GATEWAY_ERROR, 503, "", True),
        (RetryOn.GATEWAY_ERROR, 500, "", False),
        (RetryOn.RETRIABLE_4XX, 409, "", True),
        (RetryOn.RETRIABLE_4XX, 404, "", False),
        (RetryOn.STATUS_CODES, 418, "", True),
        (RetryOn.STATUS_CODES, 419, "", False),
        (RetryOn.GRPC_CANCELLED, 200, "1", True),
        (RetryOn.GRPC_DEADLINE_EXCEEDED, 200, "4", True),
        (RetryOn.GRPC_RESOURCE_EXHAUSTED, 200, "8", True),
        (RetryOn.GRPC_INTERNAL, 200, "13", True),
        (RetryOn.GRPC_UNAVAILABLE, 200, "14", True),
        (RetryOn.GRPC_UNAVAILABLE, 200, "13", False),
        (RetryOn.GRPC_UNAVAILABLE, 200, "0", False),
        (RetryOn.GRPC_UNAVAILABLE, 200, "x", False),
        (RetryOn.CONNECT_FAILURE, 503, "", False),
    ],
)
def test_responses_are_tried_again_as_the_rule_says(
    on: RetryOn, status: int, grpc: str, expected: bool
) -> None:
    fields = ((b":status", b"%d" % status), *([(b"grpc-status", grpc.encode())] if grpc else []))
    made = retries(on, codes=(418,) if on is RetryOn.STATUS_CODES else ())
    assert made.after_response(fields) is expected


def test_a_server_that_says_it_is_overloaded_is_left_alone() -> None:
    made = retries(RetryOn.SERVER_ERROR)
    assert not made.after_response(((b":status", b"503"), (b"x-envoy-overloaded", b"true")))
    limited = ((b":status", b"429"), (b"x-envoy-ratelimited", b"true"))
    assert not made.after_response(limited)
    assert retries(RetryOn.RATE_LIMITED).after_response(limited)
    assert not Retries(None).after_response(((b":status", b"503"),))


def test_waits_double_up_to_a_limit_and_each_is_a_random_part() -> None:
    rng = Random(1)
    longest = [0.0] * 6
    for _ in range(300):
        made = Retries(Retry(6, frozenset((RetryOn.RESET,))))
        for number in range(6):
            longest[number] = max(longest[number], made.next_wait(rng))
        assert made.left == 0
    limits = [0.025, 0.075, 0.175, 0.25, 0.25, 0.25]
    for reached, limit in zip(longest, limits, strict=True):
        assert 0.9 * limit < reached <= limit


def test_retries_have_room_for_so_many() -> None:
    budget = Budget(2)
    assert budget.take()
    assert budget.take()
    assert not budget.take()
    assert budget.refused == 1
    budget.give()
    assert budget.take()


def test_another_endpoint_is_asked_unless_the_rule_says_no() -> None:
    tries, on = (endpoint(1), endpoint(2)), frozenset((RetryOn.RESET,))
    assert Retries(ISTIO_RETRY).after(tries) == Tried(tries, others=True, remote=False)
    assert Retries(None).after(tries) == Tried(tries)
    assert Retries(Retry(1, on, elsewhere=False)).after(tries) == Tried(tries, others=False)
    assert Retries(Retry(1, on, remote=True)).after(tries) == Tried(tries, remote=True)
