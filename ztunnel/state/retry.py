"""Retries as Istio's resources say them: networking.istio.io/v1 HTTPRetry (istio/istio
pilot/pkg/networking/core/route/retry/retry.go)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ztunnel.model.route_policy import ISTIO_RETRY, MOST_ATTEMPTS, Retry, RetryOn
from ztunnel.state.duration import read_duration
from ztunnel.state.field import Field

RETRY_FIELDS: Final = (
    "attempts", "backoff", "perTryTimeout", "retryIgnorePreviousHosts", "retryOn", "retryRemoteLocalities",
)  # fmt: skip
_WITHOUT_EFFECT: Final = ("retriable-headers", "http3-post-connect-failure")
"""There are no headers to retry on, and there is no HTTP/3."""


@dataclass(frozen=True, slots=True)
class Retries:
    """An HTTPRetry. `retry` None: there is no further try. `asked` are the attempts as they are written."""

    retry: Retry | None
    try_seconds: float = 0.0
    asked: int = 0


def read_retries(place: Field) -> Retries:
    """An HTTPRetry, of which Istio's defaults are taken where it is silent."""
    place.only(RETRY_FIELDS)
    number, elsewhere = place.sub("attempts"), place.sub("retryIgnorePreviousHosts")
    attempts = (number.as_number() if number is not None else 0) or 0
    on, codes = _read_on(place)
    seconds, backoff = read_duration(place, "perTryTimeout", 0.001), read_duration(place, "backoff", 0.001)
    if attempts < 0:
        place.fault("attempts are not negative")
    if attempts == 0 and (on or seconds or backoff):
        place.fault("attempts: 0 tries nothing again: leave out what else is said")
    if attempts <= 0:
        return Retries(None)
    base = backoff or ISTIO_RETRY.base_seconds
    retry = Retry(
        min(attempts, MOST_ATTEMPTS),
        on or ISTIO_RETRY.on,
        codes,
        base,
        base * 10,
        place.flag("retryIgnorePreviousHosts") if elsewhere is not None else True,
        place.flag("retryRemoteLocalities"),
    )
    return Retries(retry, seconds or 0.0, attempts)


def _read_on(place: Field) -> tuple[frozenset[RetryOn], tuple[int, ...]]:
    """The names of `retryOn`, and the status codes among them."""
    names, codes = set[RetryOn](), list[int]()
    for each in place.text("retryOn").split(","):
        name = each.strip()
        if name in list(RetryOn):
            names.add(RetryOn(name))
        elif name.isascii() and name.isdigit() and len(name) == 3 and 400 <= int(name) < 600:
            codes.append(int(name))
            names.add(RetryOn.STATUS_CODES)
        elif name and name not in _WITHOUT_EFFECT:
            place.fault(
                f"retryOn: {name!r} is neither a status from 400 to 599 nor one of {', '.join(RetryOn)}"
            )
    return frozenset(names), tuple(dict.fromkeys(codes))
