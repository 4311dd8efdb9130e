"""Figures of a control plane, under istiod's names where they mean the same.

istiod's counters have no `_total` at the end of their names, and dashboards ask for them as they are. The
text format wants it of a counter, so they are gauges here; `rate()` works on them all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from prometheus_client.metrics import Histogram

from ztunnel.telemetry.figures import Figures, Tally
from ztunnel.xds.resource import ADDRESS, AUTHORIZATION, HTTP_TYPES

_TYPES: Final = {
    ADDRESS: "wds",
    AUTHORIZATION: "wads",
    **{url: url.rpartition("/")[2] for url in HTTP_TYPES},
}
"""istiod's `type` labels (pkg/model/xds.go), and those of our own."""

_PUSH_SECONDS: Final = (0.01, 0.1, 1, 3, 5, 10, 20, 30)
_CONVERGENCE_SECONDS: Final = (0.1, 0.5, 1, 3, 5, 10, 20, 30)
"""Buckets as istiod has them (pilot/pkg/xds/monitoring.go)."""
_ACKNOWLEDGED_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Counts(Protocol):
    """The part of `rpc.serve.Counts` that is needed."""

    handshakes: int
    handshakes_failed: int
    turned_away: int


class Server(Protocol):
    """The part of `rpc.serve.Server` that is needed."""

    @property
    def connections(self) -> int: ...

    @property
    def counts(self) -> Counts: ...


class ControlFigures:
    """What is counted of subscribers."""

    def __init__(self, figures: Figures, version: str, sessions: Callable[[], int]) -> None:
        figures.gauge(
            "pilot_xds",
            "Number of endpoints connected to this pilot using XDS.",
            lambda: [((version,), sessions())],
            ["version"],
        )
        self._pushes = _counter(figures, "pilot_xds_pushes", "Pilot build and sent xDS pushes", ["type"])
        self._rejects = _counter(
            figures,
            "pilot_total_xds_rejects",
            "Total number of XDS responses from pilot rejected by proxy.",
            ["type"],
        )
        self._push = Histogram(
            "pilot_xds_push_time",
            "Total time in seconds Pilot takes to push.",
            ["type"],
            buckets=_PUSH_SECONDS,
            registry=figures,
        )
        self._convergence = Histogram(
            "pilot_proxy_convergence_time",
            "Delay in seconds between config change and a proxy receiving all required configuration.",
            buckets=_CONVERGENCE_SECONDS,
            registry=figures,
        )
        self._acknowledged = Histogram(
            "ztunnel_control_push_seconds",
            "From when a change was known until a node proxy has acknowledged it",
            buckets=_ACKNOWLEDGED_SECONDS,
            registry=figures,
        )
        self._slow = figures.tally(
            "ztunnel_control_slow_subscribers_total",
            "Subscribers that did not read in time",
            [],
        )

    def pushed(self, type_url: str, seconds: float, since_change_seconds: float | None) -> None:
        """A response was made and taken by its subscriber's connection; None where no change made it."""
        kind = _TYPES.get(type_url, "unknown")
        self._pushes.add(kind)
        self._push.labels(kind).observe(seconds)
        if since_change_seconds is not None:
            self._convergence.observe(since_change_seconds)

    def acknowledged(self, seconds: float) -> None:
        """A subscriber has taken changes, so long after the first of them was known."""
        self._acknowledged.observe(seconds)

    def rejected(self, type_url: str) -> None:
        """A subscriber refused some of a response."""
        self._rejects.add(_TYPES.get(type_url, "unknown"))

    def left(self) -> None:
        """A subscriber did not read in time."""
        self._slow.add()


def register_server(figures: Figures, server: Server) -> None:
    """What came to the port for node proxies."""
    counts = server.counts
    figures.gauge("ztunnel_control_connections", "Connections to 15012", lambda: server.connections)
    figures.counter("ztunnel_control_handshakes_total", "TLS handshakes done", lambda: counts.handshakes)
    figures.counter(
        "ztunnel_control_handshakes_failed_total",
        "TLS handshakes that a peer did not complete",
        lambda: counts.handshakes_failed,
    )
    figures.counter(
        "ztunnel_control_turned_away_total",
        "Connections closed at once, because their address had too many",
        lambda: counts.turned_away,
    )


def _counter(figures: Figures, name: str, help_text: str, labels: list[str]) -> Tally:
    tally = Tally(len(labels))
    figures.gauge(name, help_text, tally.samples, labels)
    return tally
