"""Endpoints that fail are not chosen for a while (Envoy's outlier_detection_impl.cc, as Istio sets it up).

```
in use ── so many failures in a row ──> ejected ── base time x how often ──> in use
   └── each interval without an ejection takes one off that number
```

Failures to connect, and requests that were cut off, count as 503, time-outs as 504, unless `split` has them
counted apart; of answers those from 500 on are failures, unless `codes` says which are. No more are ejected
than the percentage says, but one of several may always be: of two endpoints ten percent would be none
(envoyproxy/envoy#8140 of its gateway, Envoy's always_eject_one_host).
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final

from ztunnel.l7.balancing.host import Host
from ztunnel.model.traffic import Outlier

MOST_SECONDS: Final = 300.0
"""Envoy's max_ejection_time, which a longer base time overrules."""

_GATEWAY: Final = (502, 503, 504)
_GRPC: Final = {2: 500, 4: 504, 12: 501, 13: 500, 14: 503, 15: 500}


def status_of_grpc(code: int) -> int:
    """The status that a call of gRPC counts with (gRPC's mapping, Envoy's grpcToHttpStatus)."""
    return _GRPC.get(code, 200)


class Outliers:
    """Those of one service, subset or port.

    Attributes:
        ejected: that are, now.
        ejections: how often it was done.
        overflows: how often it was not, because too many were.
    """

    __slots__ = ("_next", "_outlier", "_watched", "ejected", "ejections", "overflows")

    def __init__(self, outlier: Outlier, now: float) -> None:
        self._outlier = outlier
        self._next = now + outlier.interval_seconds
        self._watched: set[Host] = set()
        self.ejected: set[Host] = set()
        self.ejections = 0
        self.overflows = 0

    def take_over(self, hosts: AbstractSet[Host]) -> None:
        """The hosts are these now; the ejected among them stay so."""
        self._watched &= hosts
        self.ejected &= hosts
        for host in hosts:
            if host.ejected_at is not None:
                self._watched.add(host)
                self.ejected.add(host)

    def responded(self, host: Host, status: int, count: int, now: float) -> bool:
        """It has answered, with that status; `count` is how many hosts there are. Whether it was ejected."""
        host.local_errors = 0
        codes = self._outlier.codes
        if codes:  # Envoy's error_matcher: what is none of them is a success, and 429 as good as 500
            status = max(status, 500) if status in codes else 200
        return self._count(host, status, count, now)

    def failed(self, host: Host, timed_out: bool, count: int, now: float) -> bool:
        """It could not be reached, or broke off, or did not answer in time. Whether it was ejected."""
        outlier = self._outlier
        if not outlier.split:
            return self._count(host, 504 if timed_out else 503, count, now)
        if host.ejected_at is not None:
            return False
        host.local_errors += 1
        if outlier.local and host.local_errors >= outlier.local:
            host.local_errors = 0
            return self._eject(host, count, now)
        return False

    def connected(self, host: Host) -> None:
        """A connection to it stands: it can be reached."""
        host.local_errors = 0

    def _count(self, host: Host, status: int, count: int, now: float) -> bool:
        if status < 500:
            host.server_errors = host.gateway_errors = 0
            return False
        if host.ejected_at is not None:
            return False
        outlier, due = self._outlier, False
        if status in _GATEWAY:
            host.gateway_errors += 1
            if outlier.gateway_errors and host.gateway_errors >= outlier.gateway_errors:
                host.gateway_errors, due = 0, True
        else:
            host.gateway_errors = 0
        host.server_errors += 1
        if outlier.server_errors and host.server_errors >= outlier.server_errors:
            host.server_errors, due = 0, True
        return due and self._eject(host, count, now)

    def _eject(self, host: Host, count: int, now: float) -> bool:
        outlier = self._outlier
        most = max(MOST_SECONDS, outlier.base_seconds)
        after = len(self.ejected) + 1
        if after * 100 > outlier.most_percent * count and not (after == 1 and count > 1):
            self.overflows += 1
            return False
        host.ejected_at = now
        if host.ejections * outlier.base_seconds < most + outlier.base_seconds:
            host.ejections += 1
        self.ejected.add(host)
        self._watched.add(host)
        self.ejections += 1
        return True

    def look(self, now: float) -> bool:
        """Time has passed. Whether an endpoint is in use again."""
        if now < self._next:
            return False
        outlier = self._outlier
        self._next = now + outlier.interval_seconds
        most, back = max(MOST_SECONDS, outlier.base_seconds), False
        for host in tuple(self._watched):
            if host.ejected_at is None:
                host.ejections -= 1
                if host.ejections <= 0:
                    self._watched.discard(host)
            elif min(outlier.base_seconds * host.ejections, most) <= now - host.ejected_at:
                self._restore(host)
                back = True
        return back

    def _restore(self, host: Host) -> None:
        self.ejected.discard(host)
        host.ejected_at = None
        host.server_errors = host.gateway_errors = host.local_errors = 0

    def stop(self) -> None:
        """Nobody is ejected any more."""
        for host in tuple(self.ejected):
            self._restore(host)
        self._watched.clear()
