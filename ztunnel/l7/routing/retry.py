"""Whether a request is tried again, and how long before that is waited (Envoy's RetryStateImpl)."""

from __future__ import annotations

from enum import Enum
from typing import Final

from ztunnel.http1.head import Fields
from ztunnel.l7.balancing.ring import Endpoints
from ztunnel.l7.balancing.tried import Tried
from ztunnel.l7.chance import Rng
from ztunnel.model.route_policy import Retry, RetryOn

_GATEWAY: Final = frozenset((502, 503, 504))
_CONFLICT: Final = 409
_GRPC: Final = {
    1: RetryOn.GRPC_CANCELLED,
    4: RetryOn.GRPC_DEADLINE_EXCEEDED,
    8: RetryOn.GRPC_RESOURCE_EXHAUSTED,
    13: RetryOn.GRPC_INTERNAL,
    14: RetryOn.GRPC_UNAVAILABLE,
}


_UNSEEN: Final = frozenset((RetryOn.RESET_BEFORE_REQUEST, RetryOn.CONNECT_FAILURE))
"""Failures of requests that no server has seen."""


class Loss(Enum):
    """How a try was lost without a response: the server could not be reached, refused the request unread
    (HTTP/2 REFUSED_STREAM), cut it off, or took too long for one try."""

    CONNECT = "connect"
    REFUSED = "refused"
    RESET = "reset"
    TRY_TIMEOUT = "try timeout"


DEFAULT: Final = Retry(2, frozenset((RetryOn.RESET_BEFORE_REQUEST,)))
"""Where no route says anything: what cannot have had an effect is tried twice more. Of a request that is no
call of gRPC it is what Istio's retries come to, and needs no body once more."""

DEFAULT_OF_CALLS: Final = Retry(2, DEFAULT.on | {RetryOn.GRPC_UNAVAILABLE, RetryOn.GRPC_CANCELLED})
"""The same for calls of gRPC: their servers may say that they are not there (Istio's waypoints since 1.31,
istio/istio#60683)."""


class Retries:
    """Those of one request.

    Attributes:
        left: how many there are.
        held: whether they take a place of the budget.
        replays: whether a request may be tried again that a server has seen, so that its body is needed.
    """

    __slots__ = ("_retry", "_waits", "held", "left", "replays")

    def __init__(self, retry: Retry | None) -> None:
        self._retry = retry
        self._waits = 0
        self.left = retry.attempts if retry is not None else 0
        self.held = False
        self.replays = retry is not None and not retry.on <= _UNSEEN

    @property
    def any(self) -> bool:
        """Whether there were some at first."""
        return self._retry is not None

    def after(self, tries: Endpoints) -> Tried:
        """What the next try is to know of those before."""
        retry = self._retry
        return Tried(tries, retry.elsewhere, retry.remote) if retry is not None else Tried(tries)

    def after_loss(self, loss: Loss, unsent: bool) -> bool:
        """Whether a try that was lost like that is a failure to retry; `unsent`: nothing of it reached a
        server."""
        if self._retry is None:
            return False
        on = self._retry.on
        if RetryOn.SERVER_ERROR in on or RetryOn.GATEWAY_ERROR in on or RetryOn.RESET in on:
            return True
        if unsent and RetryOn.RESET_BEFORE_REQUEST in on:
            return True
        if loss is Loss.REFUSED:
            return RetryOn.REFUSED_STREAM in on
        return loss is Loss.CONNECT and RetryOn.CONNECT_FAILURE in on

    def after_response(self, fields: Fields) -> bool:
        """Whether a response with these fields, of which `:status` is the first, is a failure to retry."""
        retry = self._retry
        if retry is None:
            return False
        on, status, grpc = retry.on, int(fields[0][1]), -1
        for name, value in fields:
            if name == b"x-envoy-overloaded":
                return False
            if name == b"x-envoy-ratelimited":
                return RetryOn.RATE_LIMITED in on
            if name == b"grpc-status" and value.isdigit():
                grpc = int(value[:3])
        if status >= 500 and RetryOn.SERVER_ERROR in on:
            return True
        if status in _GATEWAY and RetryOn.GATEWAY_ERROR in on:
            return True
        if status == _CONFLICT and RetryOn.RETRIABLE_4XX in on:
            return True
        if status in retry.codes and RetryOn.STATUS_CODES in on:
            return True
        return grpc in _GRPC and _GRPC[grpc] in on

    def next_wait(self, rng: Rng) -> float:
        """Take one; seconds before it: a random part of what doubles each time."""
        retry = self._retry
        assert retry is not None
        most = min(retry.base_seconds * (2 << self._waits) - retry.base_seconds, retry.most_seconds)
        self._waits += 1
        self.left -= 1
        return rng.random() * most


class Budget:
    """How many retries there may be at once, of all requests of a waypoint (Envoy's max_retries; Istio's
    default is no limit): each holds its request's body.

    Attributes:
        retries: that are under way, or wait.
        refused: that there was no room for; they are counted.
    """

    __slots__ = ("_most", "refused", "retries")

    def __init__(self, most: int = 1024) -> None:
        self._most = most
        self.retries = 0
        self.refused = 0

    def take(self) -> bool:
        """Whether there is room for one more; if so it is taken, until `give`."""
        if self.retries >= self._most:
            self.refused += 1
            return False
        self.retries += 1
        return True

    def give(self) -> None:
        """A retry is over."""
        self.retries -= 1
