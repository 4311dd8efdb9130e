"""How the requests of a routing rule are sent: retried, made to fail, mirrored, and shared across origins."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ztunnel.model.route_action import Destination
from ztunnel.model.route_match import TextKind, TextMatch

MILLION = 1_000_000
"""All requests. A share is a number of a million of them, as Envoy counts what Istio says in percent."""

MOST_ATTEMPTS = 10
"""Retries of one request: more is a storm. (Istio and the Gateway API set no limit.)"""


def _check_share(per_million: int) -> None:
    if not 0 <= per_million <= MILLION:
        raise ValueError(f"a share is one of a million requests, not {per_million}")


class RetryOn(StrEnum):
    """What is tried again, by Envoy's names (`x-envoy-retry-on`, `x-envoy-retry-grpc-on`)."""

    SERVER_ERROR = "5xx"
    GATEWAY_ERROR = "gateway-error"
    RESET = "reset"
    RESET_BEFORE_REQUEST = "reset-before-request"
    CONNECT_FAILURE = "connect-failure"
    RETRIABLE_4XX = "retriable-4xx"
    REFUSED_STREAM = "refused-stream"
    STATUS_CODES = "retriable-status-codes"
    RATE_LIMITED = "envoy-ratelimited"
    GRPC_CANCELLED = "cancelled"
    GRPC_DEADLINE_EXCEEDED = "deadline-exceeded"
    GRPC_INTERNAL = "internal"
    GRPC_RESOURCE_EXHAUSTED = "resource-exhausted"
    GRPC_UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Retry:
    """Further tries of a request that failed.

    Attributes:
        attempts: beyond the first try.
        on: what failures are; `codes` are those of RetryOn.STATUS_CODES.
        base_seconds: of the first wait; they double, up to `most_seconds`, and each is a random part of that
            (Envoy's JitteredExponentialBackOffStrategy).
        elsewhere: an endpoint that failed is not asked again while there are others
            (`retryIgnorePreviousHosts`).
        remote: after every second try, levels of localities that were tried are not asked again while there
            are others (`retryRemoteLocalities`).
    """

    attempts: int
    on: frozenset[RetryOn]
    codes: tuple[int, ...] = ()
    base_seconds: float = 0.025
    most_seconds: float = 0.25
    elsewhere: bool = True
    remote: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.attempts <= MOST_ATTEMPTS:
            raise ValueError(f"a request is tried again 1 to {MOST_ATTEMPTS} times, not {self.attempts}")
        if not 0 < self.base_seconds <= self.most_seconds:
            raise ValueError("a first wait is longer than nothing, and not than the longest one")
        if self.codes and RetryOn.STATUS_CODES not in self.on:
            raise ValueError(f"status codes count by {RetryOn.STATUS_CODES} only")
        if any(not 400 <= code < 600 for code in self.codes):
            raise ValueError(f"a status that is tried again is one from 400 to 599: {self.codes}")


ISTIO_RETRY = Retry(
    2,
    frozenset(
        (RetryOn.CONNECT_FAILURE, RetryOn.REFUSED_STREAM, RetryOn.GRPC_UNAVAILABLE, RetryOn.GRPC_CANCELLED)
    ),
)
"""What a VirtualService does that says nothing of retries, where the mesh config says nothing either (Istio,
retry.DefaultPolicy)."""


@dataclass(frozen=True, slots=True)
class RetryDefault:
    """What counts for requests of whose retries nothing is said (MeshConfig's defaultHttpRetryPolicy).
    `retry` None: nothing is tried again; `try_seconds`: for each try, 0: as long as for all."""

    retry: Retry | None = ISTIO_RETRY
    try_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Delay:
    """A share of the requests waits."""

    seconds: float
    per_million: int

    def __post_init__(self) -> None:
        _check_share(self.per_million)
        if self.seconds <= 0:
            raise ValueError(f"a delay is longer than nothing: {self.seconds}")


@dataclass(frozen=True, slots=True)
class Abort:
    """A share of the requests is answered with a status of HTTP, or else with one of gRPC."""

    per_million: int
    status: int = 0
    grpc_status: int | None = None

    def __post_init__(self) -> None:
        _check_share(self.per_million)
        if (self.status == 0) == (self.grpc_status is None):
            raise ValueError("an abort has a status of HTTP or one of gRPC")
        if self.status and not 200 <= self.status < 600:
            raise ValueError(f"an abort has a status from 200 to 599, not {self.status}")
        if self.grpc_status is not None and not 0 <= self.grpc_status <= 16:
            raise ValueError(f"gRPC has the statuses 0 to 16, not {self.grpc_status}")


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong on purpose: first the delay, then the abort."""

    delay: Delay | None = None
    abort: Abort | None = None


@dataclass(frozen=True, slots=True)
class Mirror:
    """A share of the requests is sent to another destination as well, whose response is nobody's. One whose
    destination has a refusal is sent nowhere."""

    destination: Destination
    per_million: int = MILLION

    def __post_init__(self) -> None:
        _check_share(self.per_million)


@dataclass(frozen=True, slots=True)
class Cors:
    """Which other origins' pages may read responses (the Fetch standard, CORS protocol).

    Attributes:
        methods, headers, exposed: as the response names them, joined by commas.
        max_age_seconds: how long a preflight's answer holds; None: it does not say.
        forward_unmatched: a preflight of an origin that is not allowed is sent on (Istio's `FORWARD`), not
            answered here without allowing anything (`IGNORE`, and the Gateway API).
    """

    origins: tuple[TextMatch, ...]
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    max_age_seconds: int | None = None
    credentials: bool = False
    forward_unmatched: bool = True

    def __post_init__(self) -> None:
        if any(each.kind in (TextKind.SEGMENTS, TextKind.PRESENT) for each in self.origins):
            raise ValueError("an origin is compared by its text")
        if self.max_age_seconds is not None and self.max_age_seconds < 0:
            raise ValueError(f"an age is not negative: {self.max_age_seconds}")
