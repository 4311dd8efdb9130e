"""What is said of requests and connections through one tunnel when they have ended: a line in the access log,
and Istio's metrics with `reporter="waypoint"`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ztunnel.errors import ConnectionFailed, Denied, Flag, NoDestination, Overflow
from ztunnel.flow.flow import Counts
from ztunnel.l7.telemetry.attribute import Subject
from ztunnel.model.address import Endpoint
from ztunnel.model.connection import Security
from ztunnel.model.identity import SpiffeId
from ztunnel.model.service import Service, ServiceName
from ztunnel.model.workload import TunnelProtocol, Workload
from ztunnel.telemetry.labels import Reporter, TcpLabels, tcp_labels
from ztunnel.telemetry.metrics import Live, TcpMetrics
from ztunnel.telemetry.request_counts import RequestCounts, RequestLabels, Series, request_labels
from ztunnel.telemetry.request_log import RequestRecord
from ztunnel.waypoint.chain import Chain
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.reporting.scope import Scope
from ztunnel.waypoint.reporting.tracing import span_of, with_trials

_KINDS_REMEMBERED: Final = 256
_NO_GRPC: Final = "-"
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


_Key = tuple[str, ServiceName | None, int, str, str]


class _Kind:
    """Requests with the same labels, and where they are counted, once one was."""

    __slots__ = ("labels", "series")

    def __init__(self, labels: RequestLabels) -> None:
        self.labels = labels
        self.series: Series | None = None


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
        self._kinds: dict[_Key, _Kind] = {}
        self._called, self._caller_address = str(chain.destination), str(caller.source)
        self._peer = str(caller.identity)
        self._cluster = chain.cluster("http")

    @property
    def identity(self) -> SpiffeId:
        """Who calls."""
        return self._caller.identity

    def ended(self, exchange: Exchange, version: int) -> None:
        """An exchange is over."""
        scope, trace = self.scope, exchange.request.trace
        seconds = self._now() - exchange.began
        kind = self._kind_of(exchange)
        values = seconds * 1000, float(exchange.received_bytes), float(exchange.sent_bytes)
        received, sent = exchange.received_messages, exchange.sent_messages
        messages = (received.count, sent.count) if received is not None and sent is not None else None
        edits, spans = scope.edits, scope.spans
        if edits is None:
            series = kind.series
            if series is None:
                series = kind.series = self._telemetry.requests.of(kind.labels)
            series.add(values, messages)
        traced = trace is not None and trace.sampled and spans is not None
        if not scope.logs and not traced and edits is None:
            return
        record = self._record(exchange, version, seconds)
        subject = Subject(record, kind.labels, self._caller.workload, exchange.destination)
        if edits is not None:
            for edited in edits.of(subject):
                self._telemetry.requests.count_edited(edited, values, messages)
        if trace is not None and spans is not None and traced:
            one = span_of(subject.record, trace, kind.labels, spans.tags, spans.istio_tags)
            spans.put(with_trials(one, exchange.trials) if exchange.trials else one)
        scope.log(subject, trace)

    def _record(self, exchange: Exchange, version: int, seconds: float) -> RequestRecord:
        request, answered = exchange.request, exchange.answered_at
        record = self._new_record(seconds)
        record.method = _text(request.method)
        record.path = _text(request.path)
        record.authority = _text(request.authority)
        record.scheme = _text(request.scheme)
        for name, value in request.fields:
            if name == b"x-forwarded-for":
                record.forwarded_for = record.forwarded_for or _text(value)
            elif name == b"user-agent":
                record.user_agent = record.user_agent or _text(value)
            elif name == b"x-request-id":
                record.request_id = record.request_id or _text(value)
            elif name == b"x-envoy-original-path" and value:
                record.path = _text(value)
        record.protocol = "HTTP/2" if version == 2 else "HTTP/1.1"
        record.status, record.flag, record.details = exchange.status, exchange.flag, exchange.details
        record.upstream_failure = exchange.failure
        record.received_bytes, record.sent_bytes = exchange.received_bytes, exchange.sent_bytes
        if answered:
            record.upstream_milliseconds = int((answered - exchange.began) * 1000)
        record.upstream_host = exchange.host
        record.upstream_cluster = self._cluster if exchange.cluster is None else exchange.cluster
        record.route = exchange.plan.name
        record.request, record.response = tuple(request.fields), exchange.response
        record.trailers = exchange.trailers
        record.attempts = exchange.attempts.count
        record.grpc_status = exchange.grpc_status
        return record

    def _new_record(self, seconds: float) -> RequestRecord:
        """Of what has ended and took so long, with what all records of the tunnel have in common."""
        record = RequestRecord(self._telemetry.now_ns() - int(seconds * 1e9))
        record.duration_seconds = seconds
        record.downstream_local, record.downstream_remote = self._called, self._caller_address
        record.peer = self._peer
        return record

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
        return tcp.of(labels, self._new_record(0.0)) if tcp.counted else None

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
        record = self._new_record(self._now() - began)
        record.flag = _envoys(error, stood)
        record.termination = error.details if isinstance(error, Denied) else ""
        record.upstream_failure = str(error) if error else ""
        record.received_bytes, record.sent_bytes = counts.up, counts.down
        record.upstream_host = host
        record.upstream_cluster = self._chain.cluster("tcp")
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

    def _kind_of(self, exchange: Exchange) -> _Kind:
        destination, service = exchange.destination, exchange.service
        grpc = exchange.is_grpc
        key = (
            destination.uid if destination is not None else "",
            service.key if service is not None else None,
            exchange.status,
            exchange.grpc_status if grpc else _NO_GRPC,
            exchange.flag,
        )
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) >= _KINDS_REMEMBERED:
                self._kinds.clear()
            labels = request_labels(
                self.tcp_labels(destination, service), "grpc" if grpc else "http"
            )._replace(
                response_code=str(exchange.status),
                grpc_response_status=exchange.grpc_status if grpc else "",
                response_flags=exchange.flag,
            )
            kind = self._kinds[key] = _Kind(labels)
        return kind


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
