"""How requests can be sent, and what makes no sense."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ztunnel.model.route_action import Destination
from ztunnel.model.route_match import TextKind, TextMatch
from ztunnel.model.route_policy import ISTIO_RETRY, MILLION, Abort, Cors, Delay, Mirror, Retry, RetryOn
from ztunnel.model.service import ServiceName

ON = frozenset((RetryOn.RESET,))
COPY = Destination(ServiceName("shop", "copy"))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Retry(0, ON), "1 to 10 times"),
        (lambda: Retry(11, ON), "1 to 10 times"),
        (lambda: Retry(1, ON, base_seconds=0), "longer than nothing"),
        (lambda: Retry(1, ON, base_seconds=2, most_seconds=1), "not than the longest"),
        (lambda: Retry(1, ON, codes=(503,)), "retriable-status-codes only"),
        (lambda: Retry(1, frozenset((RetryOn.STATUS_CODES,)), codes=(399,)), "400 to 599"),
        (lambda: Delay(0, 1), "longer than nothing"),
        (lambda: Delay(1, MILLION + 1), "a million"),
        (lambda: Abort(-1, 500), "a million"),
        (lambda: Abort(1), "HTTP or one of gRPC"),
        (lambda: Abort(1, 500, 14), "HTTP or one of gRPC"),
        (lambda: Abort(1, 100), "200 to 599"),
        (lambda: Abort(1, grpc_status=17), "0 to 16"),
        (lambda: Mirror(COPY, MILLION + 1), "a million"),
        (lambda: Cors((TextMatch(TextKind.PRESENT),)), "by its text"),
        (lambda: Cors((), max_age_seconds=-1), "not negative"),
    ],
)
def test_it_makes_no_sense(make: Callable[[], object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        make()


def test_defaults_are_istios() -> None:
    assert ISTIO_RETRY.attempts == 2
    assert ISTIO_RETRY.elsewhere
    assert (ISTIO_RETRY.base_seconds, ISTIO_RETRY.most_seconds) == (0.025, 0.25)
    assert Mirror(COPY).per_million == MILLION
    assert Cors(()).forward_unmatched
    assert Abort(MILLION, grpc_status=0).status == 0
