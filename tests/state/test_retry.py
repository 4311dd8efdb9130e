"""Retries of Istio are read, and its defaults where it says nothing."""

import pytest

from tests.state.reading import read
from ztunnel.model.route_policy import ISTIO_RETRY, Retry, RetryOn
from ztunnel.state.retry import Retries, read_retries

R = RetryOn


def retries(text):
    return read(read_retries, f"  {text}", "r")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{attempts: 3}", Retries(Retry(3, ISTIO_RETRY.on), asked=3)),
        ("{attempts: 0}", Retries(None)),
        ("{}", Retries(None)),
        ("{attempts: 3, perTryTimeout: 2s, retryOn: 'gateway-error,connect-failure'}",
         Retries(Retry(3, frozenset((R.GATEWAY_ERROR, R.CONNECT_FAILURE))), 2.0, 3)),
        ("{attempts: 1, retryOn: '503, 5xx, 503, retriable-headers'}",
         Retries(Retry(1, frozenset((R.STATUS_CODES, R.SERVER_ERROR)), (503,)), asked=1)),
        ("{attempts: 1, backoff: 1s, retryIgnorePreviousHosts: false, retryRemoteLocalities: true}",
         Retries(Retry(1, ISTIO_RETRY.on, base_seconds=1, most_seconds=10, elsewhere=False, remote=True),
                 0.0, 1)),
        ("{attempts: 1000}", Retries(Retry(10, ISTIO_RETRY.on), asked=1000)),
    ],
)  # fmt: skip
def test_they_are_read(text, expected):
    assert retries(text) == (expected, [])


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("{attempts: -1}", "r"),
        ("{attempts: 0, retryOn: 5xx}", "r"),
        ("{attempts: 1, retryOn: sometimes}", "r"),
        ("{attempts: 1, retryOn: '200'}", "r"),
        ("{attempts: 1, perTryTimeout: 0s}", "r.perTryTimeout"),
        ("{attempts: many}", "r.attempts"),
        ("{attempt: 1}", "r.attempt"),
    ],
)
def test_what_is_wrong_has_a_fault(text, field):
    assert retries(text)[1] == [field]
