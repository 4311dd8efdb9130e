"""Spans of tunnels, which tie what node proxies see of a call to its trace.

Who opens a tunnel says in its CONNECT (`traceparent`, W3C Trace Context) for which span that is; flagged as
sampled, both ends report a span of the tunnel. A node proxy sees no request, so of those that share a tunnel
it is the first one's trace. Not flagged, a context only ties log lines together, and costs nothing here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from ztunnel.model.address import Endpoint
from ztunnel.telemetry.journey import Journey
from ztunnel.telemetry.labels import UNKNOWN, Reporter
from ztunnel.telemetry.metrics import Counted
from ztunnel.telemetry.span import CLIENT, SERVER, Attribute, Span

_SAMPLED = "01"
_LENGTH = 55


class Rng(Protocol):
    """Where ids and chances come from (`random.Random`)."""

    def random(self) -> float:
        """From 0 to 1."""

    def getrandbits(self, k: int, /) -> int:
        """An integer of `k` bits."""


class Ended(NamedTuple):
    """A tunnel that has ended; times are nanoseconds since the epoch, `flag` is `-` for none."""

    traceparent: str
    journey: Journey
    source: Endpoint
    counts: Counted
    began_ns: int
    ended_ns: int
    flag: str
    error: str = ""


def is_sampled(traceparent: str) -> bool:
    """Whether a context asks for spans; it is well formed."""
    return len(traceparent) == _LENGTH and traceparent[:3] == "00-" and traceparent[-2:] == _SAMPLED


class TunnelSpans:
    """Those of one process."""

    def __init__(self, put: Callable[[Span], None], rng: Rng, share: float) -> None:
        """`put` takes a span; a share (0 to 1) of the tunnels that are opened here begins a trace."""
        self._put = put
        self._rng = rng
        self._share = share

    def begin(self) -> str:
        """The context of a tunnel that is opened here; empty where it is none that is reported."""
        if self._rng.random() >= self._share:
            return ""
        digits = f"{self._rng.getrandbits(192) or 1:048x}"
        return f"00-{digits[:32]}-{digits[32:]}-{_SAMPLED}"

    def ended(self, tunnel: Ended) -> None:
        """Report one. Who opened it is the span that its context names, who accepted it one below that."""
        trace_id, named = tunnel.traceparent[3:35], tunnel.traceparent[36:52]
        opened = tunnel.journey.reporter is Reporter.SOURCE
        journey = tunnel.journey
        span_id = named if opened else f"{self._rng.getrandbits(64) or 1:016x}"
        self._put(
            Span(
                trace_id,
                span_id,
                "" if opened else named,
                f"tunnel {journey.hbone_address or journey.destination}",
                tunnel.began_ns,
                tunnel.ended_ns,
                _attributes(tunnel),
                tunnel.flag != "-",
                CLIENT if opened else SERVER,
            )
        )


def _attributes(tunnel: Ended) -> tuple[Attribute, ...]:
    labels, counts = tunnel.journey.labels, tunnel.counts
    peers = (
        ("istio.source_workload", labels.source_workload),
        ("istio.source_namespace", labels.source_workload_namespace),
        ("istio.source_principal", labels.source_principal),
        ("istio.destination_workload", labels.destination_workload),
        ("istio.destination_namespace", labels.destination_workload_namespace),
        ("istio.destination_principal", labels.destination_principal),
        ("istio.destination_service", labels.destination_service),
    )
    return (
        ("component", "ztunnel"),
        ("direction", tunnel.journey.reporter.direction.value),
        ("peer.address", str(tunnel.source.ip)),
        ("upstream_address", str(tunnel.journey.destination)),
        ("bytes_sent", counts.down),
        ("bytes_recv", counts.up),
        ("response_flags", tunnel.flag),
        ("error.message", tunnel.error),
        *(each for each in peers if each[1] != UNKNOWN),
    )
