"""What is said of requests and connections through one tunnel when they have ended: a line in the access log,
and Istio's metrics with `reporter="waypoint"`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ztunnel.errors import ConnectionFailed, Denied, Flag, NoDestination, Overflow
from ztunnel.flow.flow import Counts
from ztunnel.l7.telemetry.attribute import Subject
from ztunnel.model.address import Endpoint
from ztunnel.model.connection import Security
from ztunnel.model.identity import SpiffeId
from ztunnel.model.service import Service
from ztunnel.model.workload import TunnelProtocol, Workload
from ztunnel.telemetry.labels import Reporter, TcpLabels, tcp_labels
from ztunnel.telemetry.metrics import Live, TcpMetrics
from ztunnel.telemetry.request_counts import RequestCounts, RequestLabels, request_labels
from ztunnel.telemetry.request_log import RequestRecord
from ztunnel.waypoint.chain import Chain
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.reporting.scope import Scope
from ztunnel.waypoint.reporting.tracing import span_of

_LABELS_REMEMBERED = 256
_NO_LABELS = RequestLabels()


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Where the waypoint reports to.

    Attributes:
        now_ns: nanoseconds since the epoch.
        scope_of: what is reported of a service, None for a pod that was called by its own address.
    """

    requests: RequestCounts
    connections: TcpMetrics
    now_ns: Callable[[], int]
    scope_of: Callable[[Service | None], Scope]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who opened a tunnel: `source` is its address, with the port that the tunnel says; `workload` whose it
    is, `identity` what its certificate proved; `context` its trace's, where there is to be a span of it."""

    source: Endpoint
    workload: Workload | None
    identity: SpiffeId
    context: str = ""


class Reports:
    """Of one tunnel.

    Attributes:
        scope: what is reported of what is in it.
    """

    def __init__(self, telemetry: Telemetry, caller: Caller, chain: Chain, now: Callable[[], float]) -> None:
        """`now` gives monotonic seconds."""
        self._telemetry = telemetry
        self.scope = telemetry.scope_of(chain.service)
        self._caller = caller
        self._chain = chain
        self._now = now
        self._stood = False
        self._labels: dict[tuple[str, str, int, str, str, str], RequestLabels] = {}
        self._base = RequestRecord(
            0,
            downstream_local=str(chain.destination),
            downstream_remote=str(caller.source),
            peer=str(caller.identity),
        )

    @property
    def identity(self) -> SpiffeId:
        """Who calls."""
        return self._caller.identity

    def ended(self, exchange: Exchange, version: int) -> None:
        """An exchange is over."""
        scope, request = self.scope, exchange.request
        seconds = self._now() - exchange.began
        labels = self._labels_of(exchange)
        received, sent = exchange.received_messages, exchange.sent_messages
        messages = (received.count, sent.count) if received is not None and sent is not None else None
        edits = scope.edits
        if edits is None:
            self._telemetry.requests.count(
                labels, seconds * 1000, exchange.received_bytes, exchange.sent_bytes, messages
            )
        trace, spans = request.trace, scope.spans
        traced = trace is not None and trace.sampled and spans is not None
        if not scope.logs and not traced and edits is None:
            return
        subject = Subject(self._record(exchange, version, seconds), labels)
        if edits is not None:
            values = seconds * 1000, float(exchange.received_bytes), float(exchange.sent_bytes)
            for edited in edits.of(subject):
                self._telemetry.requests.count_edited(edited, values, messages)
        if trace is not None and spans is not None and traced:
            spans.put(span_of(subject.record, trace, labels, spans.tags, spans.istio_tags))
        scope.log(subject, trace)

    def _record(self, exchange: Exchange, version: int, seconds: float) -> RequestRecord:
        request, answered = exchange.request, exchange.answered_at
        base = self._base
        return RequestRecord(  # not by `_replace`, which takes twice as long
            time_ns=self._telemetry.now_ns() - int(seconds * 1e9),
            downstream_local=base.downstream_local,
            downstream_remote=base.downstream_remote,
            peer=base.peer,
            method=_text(request.method),
            path=_text(request.get(b"x-envoy-original-path") or request.path),
            protocol="HTTP/2" if version == 2 else "HTTP/1.1",
            status=exchange.status,
            flag=exchange.flag,
            details=exchange.details,
            upstream_failure=exchange.failure,
            received_bytes=exchange.received_bytes,
            sent_bytes=exchange.sent_bytes,
            duration_seconds=seconds,
            upstream_milliseconds=int((answered - exchange.began) * 1000) if answered else -1,
            forwarded_for=_text(request.get(b"x-forwarded-for")),
            user_agent=_text(request.get(b"user-agent")),
            request_id=_text(request.get(b"x-request-id")),
            authority=_text(request.authority),
            upstream_host=exchange.host,
            upstream_cluster=self._chain.cluster("http") if exchange.cluster is None else exchange.cluster,
            route=exchange.plan.name,
            request=tuple(request.fields),
            response=exchange.response,
            trailers=exchange.trailers,
            attempts=exchange.attempts.count,
            grpc_status=exchange.grpc_status,
        )

    def opened(self, destination: Workload | None, counts: Counts) -> Live | None:
        """A connection is passed through as it is. None: it is not counted."""
        self._stood = True
        labels = self._changed(self.tcp_labels(destination))
        return None if labels is None else self._telemetry.connections.opened(labels, counts)

    def _changed(self, labels: TcpLabels) -> TcpLabels | None:
        """As an operator wants them; None: not at all."""
        tcp = self.scope.tcp
        if tcp is None:
            return labels
        return tcp.of(labels, self._base) if tcp.counted else None

    def closed(
        self, live: Live | None, counts: Counts, began: float, host: str, error: ConnectionFailed | None
    ) -> None:
        """It has ended; `live` is None where it had not come so far, or is not counted."""
        flag, (stood, self._stood) = error.flag if error else Flag.NONE, (self._stood, False)
        if live is not None:
            self._telemetry.connections.closed(live, flag)
        elif (counted := self._changed(self.tcp_labels(None))) is not None:
            self._telemetry.connections.failed(counted.flagged(flag))
        if not self.scope.logs:
            return
        seconds = self._now() - began
        record = self._base._replace(
            time_ns=self._telemetry.now_ns() - int(seconds * 1e9),
            flag=_envoys(error, stood),
            termination=error.details if isinstance(error, Denied) else "",
            upstream_failure=str(error) if error else "",
            received_bytes=counts.up,
            sent_bytes=counts.down,
            duration_seconds=seconds,
            upstream_host=host,
            upstream_cluster=self._chain.cluster("tcp"),
        )
        filtered = any(log.condition is not None for log in self.scope.logs)
        labels = request_labels(self.tcp_labels(None), "tcp") if filtered else _NO_LABELS
        self.scope.log(Subject(record, labels))

    def tcp_labels(self, destination: Workload | None, service: Service | None = None) -> TcpLabels:
        """Of a connection to that endpoint, whose identity is proved only in the mesh; `service`: where that
        is another one than was called."""
        caller = self._caller
        proved = destination is not None and destination.protocol is TunnelProtocol.HBONE
        return tcp_labels(
            Reporter.WAYPOINT,
            caller.workload,
            destination,
            self._chain.service if service is None else service,
            caller.identity,
            destination.identity if destination is not None and proved else None,
            Security.MUTUAL_TLS,
        )

    def _labels_of(self, exchange: Exchange) -> RequestLabels:
        destination = exchange.destination
        grpc = exchange.is_grpc
        key = (
            destination.uid if destination else "",
            "grpc" if grpc else "http",
            exchange.status,
            exchange.grpc_status if grpc else "",
            exchange.flag,
            str(exchange.service.key) if exchange.service is not None else "",
        )
        labels = self._labels.get(key)
        if labels is None:
            if len(self._labels) >= _LABELS_REMEMBERED:
                self._labels.clear()
            tcp = self.tcp_labels(destination, exchange.service)
            labels = self._labels[key] = request_labels(tcp, key[1])._replace(
                response_code=str(key[2]), grpc_response_status=key[3], response_flags=key[4]
            )
        return labels


def _envoys(error: ConnectionFailed | None, stood: bool) -> str:
    """Envoy's flag of a connection: it could not be made, or was cut."""
    if error is None or error.flag in (Flag.NONE, Flag.DENY):
        return "-"
    if isinstance(error, Overflow):
        return "UO"
    if isinstance(error, NoDestination):
        return "UH"
    return "UC" if stood else "UF"


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "backslashreplace")
