"""What connections that go one way have in common, and what labels and log lines say of it.

A journey is made once for a route and shared by its connections, so what is written for each of them is
rendered once: the labels of the metrics, and the access log's line from behind the caller's address to the
direction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ztunnel.model.address import Endpoint
from ztunnel.model.connection import Security
from ztunnel.model.identity import SpiffeId
from ztunnel.model.service import Service
from ztunnel.model.workload import Workload
from ztunnel.telemetry.bare import Bare
from ztunnel.telemetry.labels import Reporter, TcpLabels, tcp_labels
from ztunnel.telemetry.line import bare, quote


@dataclass(slots=True)
class Journey:
    """All that is known of such connections when they are taken up, but the address that they come from.

    Attributes:
        destination: where we connect to or were connected to; for HBONE this is port 15008.
        source_identity, destination_identity: what mutual TLS proves, or on one node the kernel; None
            otherwise.
        hbone_address: the target inside the tunnel, empty without one.
        called: whom the application called, where we know.
    """

    reporter: Reporter
    destination: Endpoint
    source_workload: Workload | None = None
    destination_workload: Workload | None = None
    service: Service | None = None
    source_identity: SpiffeId | None = None
    destination_identity: SpiffeId | None = None
    security: Security = Security.UNKNOWN
    hbone_address: str = ""
    called: Endpoint | None = None
    _labels: TcpLabels | None = field(default=None, init=False, repr=False, compare=False)
    _text: str = field(default="", init=False, repr=False, compare=False)

    @property
    def labels(self) -> TcpLabels:
        """Of the metrics, without a flag."""
        if self._labels is None:
            self._labels = tcp_labels(
                self.reporter,
                self.source_workload,
                self.destination_workload,
                self.service,
                self.source_identity,
                self.destination_identity,
                self.security,
            )
        return self._labels

    @property
    def text(self) -> str:
        """What a line in text says between the caller's address and the counters, a space before it."""
        if not self._text:
            fields = (*self.source_fields(), *self.destination_fields())
            self._text = "".join(
                f" {key}={bare(value) if isinstance(value, Bare) else quote(value)}" for key, value in fields
            )
        return self._text

    def source_fields(self) -> Iterator[tuple[str, str]]:
        """What the log says of the caller, its address aside."""
        return _end("src", self.source_workload, self.source_identity if self._is_tls else None)

    def destination_fields(self) -> Iterator[tuple[str, str]]:
        """What the log says of the other end, and the direction."""
        yield "dst.addr", Bare(self.destination)
        if self.hbone_address:
            yield "dst.hbone_addr", Bare(self.hbone_address)
        if self.service and self.service.hostname:
            yield "dst.service", self.service.hostname
        yield from _end("dst", self.destination_workload, self.destination_identity if self._is_tls else None)
        yield "direction", self.reporter.direction.value

    @property
    def _is_tls(self) -> bool:
        """The log names identities that mutual TLS proved, as Istio's does; not those that the kernel did."""
        return self.security is Security.MUTUAL_TLS


def direct_journey(
    reporter: Reporter,
    endpoint: Endpoint,
    source: Workload | None,
    destination: Workload | None,
    service: Service | None,
) -> Journey:
    """Of connections between two pods of one node: the kernel proves both identities, and there is no TLS."""
    return Journey(
        reporter,
        endpoint,
        source,
        destination,
        service,
        source.identity if source else None,
        destination.identity if destination else None,
    )


def _end(side: str, workload: Workload | None, identity: SpiffeId | None) -> Iterator[tuple[str, str]]:
    """By the pod's name, or its canonical service where it has none; what is not known is left out."""
    if workload is not None:
        if name := workload.name or workload.canonical_name:
            yield f"{side}.workload", name
        if workload.namespace:
            yield f"{side}.namespace", workload.namespace
    if identity:
        yield f"{side}.identity", str(identity)
    if workload is not None and workload.cluster:
        yield f"{side}.cluster", workload.cluster
