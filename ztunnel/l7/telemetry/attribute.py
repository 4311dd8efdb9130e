"""The attributes that expressions may name, as Envoy and Istio's waypoints have them, over the record that a
log line is made of.

Source: Envoy's documentation, intro/arch_overview/advanced/attributes; Istio's `filter_state.upstream_peer`
and `filter_state.downstream_peer`. What is not here is refused by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

from ztunnel.model.workload import Workload
from ztunnel.telemetry.labels import UNKNOWN
from ztunnel.telemetry.request_counts import RequestLabels
from ztunnel.telemetry.request_log import Fields, RequestRecord

Value = str | int | float | bool | timedelta | None


class Unknown(Exception):
    """There is no value: of a header that is not there, or of kinds that do not go together."""


class Subject:
    """What an expression is about; `labels` are those of its metrics, `source` and `destination` who calls
    and who answers, where that is known."""

    __slots__ = ("destination", "labels", "record", "source")

    def __init__(
        self,
        record: RequestRecord,
        labels: RequestLabels,
        source: Workload | None = None,
        destination: Workload | None = None,
    ) -> None:
        self.record = record
        self.labels = labels
        self.source = source
        self.destination = destination


Get = Callable[[Subject], Value]

BITS: Final = {
    "UH": 1 << 1, "UT": 1 << 2, "UR": 1 << 4, "UF": 1 << 5, "UC": 1 << 6, "UO": 1 << 7, "NR": 1 << 8,
    "DI": 1 << 9, "FI": 1 << 10, "RL": 1 << 11, "UAEX": 1 << 12, "RLSE": 1 << 13, "DC": 1 << 14,
    "URX": 1 << 15, "SI": 1 << 16, "DPE": 1 << 18, "UPE": 1 << 23, "NC": 1 << 24,
}  # fmt: skip
"""Of response.flags, those that are given (Envoy's StreamInfo::CoreResponseFlag)."""


def attribute(names: tuple[str, ...], node: Workload | None = None) -> Get:
    """What gives the attribute of that name; `node` is the waypoint itself. Raises ValueError: it is not
    known here."""
    head, member = ".".join(names[:2]), names[2:]
    if names[:1] == ("istio_operationId",):
        raise ValueError("istio_operationId needs the attributegen plugin, which is not there")
    if names[:1] == ("filter_state",):
        names = names[1:]
        head, member = ".".join(names[:2]), names[2:]
    if names[:1] in (("upstream_peer",), ("downstream_peer",)):
        return _peer(names)
    if names[:1] == ("node",) or names[:2] == ("xds", "node"):
        first = names.index("node") + 1
        return _node(names[first:], node)
    if head in _FIELDS:
        return _member(head, member)
    get = _SIMPLE.get(head)
    if get is None or member:
        known = ", ".join(sorted((*_SIMPLE, *_FIELDS)))
        raise ValueError(f"the attribute {'.'.join(names)} is not known here; there are {known}")
    return get


def members(names: tuple[str, ...]) -> Callable[[Subject, Value], bool]:
    """Whether the map of that name has a member. Raises ValueError: there is no such map."""
    fields = _FIELDS.get(".".join(names))
    if fields is None:
        raise ValueError(f"{'.'.join(names)} is no map; there are {', '.join(sorted(_FIELDS))}")
    pick = fields

    def holds(subject: Subject, value: Value) -> bool:
        if not isinstance(value, str):
            raise Unknown
        name = value.lower().encode("utf-8", "replace")
        return _value(pick(subject.record), name) is not None

    return holds


def _member(head: str, member: tuple[str, ...]) -> Get:
    if len(member) != 1:
        raise ValueError(f"{head} is a map: a member of it is {head}['name']")
    fields, name = _FIELDS[head], member[0].lower().encode("utf-8", "replace")
    pseudo = _PSEUDO.get(member[0].lower()) if head == "request.headers" else None

    def get(subject: Subject) -> Value:
        if pseudo is not None:
            return _some(pseudo(subject.record))
        found = _value(fields(subject.record), name)
        if found is None:
            raise Unknown
        return found

    return get


def _value(fields: Fields, name: bytes) -> str | None:
    """The values of a header, joined; None: it is not there."""
    found = [value for each, value in fields if each == name]
    return b",".join(found).decode("utf-8", "backslashreplace") if found else None


def _peer(names: tuple[str, ...]) -> Get:
    upstream = names[0] == "upstream_peer"
    side = "destination_" if upstream else "source_"
    of_workload = _OF_WORKLOADS.get(names[1]) if len(names) == 2 else None
    if of_workload is not None:
        say = of_workload

        def get_own(subject: Subject) -> Value:
            workload = subject.destination if upstream else subject.source
            if workload is None:
                raise Unknown
            return say(workload)

        return get_own
    label = _OF_PEERS.get(names[1]) if len(names) == 2 else None
    if label is None:
        known = ", ".join(f"{names[0]}.{name}" for name in (*_OF_PEERS, *_OF_WORKLOADS))
        raise ValueError(f"{'.'.join(names)} is not known here; there are {known}")
    index = RequestLabels._fields.index(side + label)

    def get(subject: Subject) -> Value:
        found = subject.labels[index]
        if found == UNKNOWN:
            raise Unknown
        return found

    return get


def _node(names: tuple[str, ...], node: Workload | None) -> Get:
    """Of the waypoint: what its pod tells istiod as well (istio/istio pkg/model/proxy.go NodeMetadata)."""
    say = _OF_NODE.get(names[1]) if len(names) == 2 and names[0] == "metadata" else None
    if say is None:
        known = ", ".join(f"node.metadata['{name}']" for name in _OF_NODE)
        raise ValueError(f"{'.'.join(('node', *names))} is not known here; there are {known}")
    text = say(node) if node is not None else ""
    return lambda subject: _some(text)


def _some(text: str) -> str:
    if not text:
        raise Unknown
    return text


def _port(address: str) -> int:
    port = address.rpartition(":")[2]
    if not port.isdigit():
        raise Unknown
    return int(port)


def _header(name: bytes) -> Get:
    return lambda it: _some(_value(it.record.request, name) or "")


def _flags(flag: str) -> int:
    return sum(BITS.get(each, 0) for each in flag.split(","))


def _grpc(status: str) -> int:
    if not status.isdigit():
        raise Unknown
    return int(status)


def _milliseconds(milliseconds: int) -> timedelta:
    if milliseconds < 0:
        raise Unknown
    return timedelta(milliseconds=milliseconds)


def _total(fields: Fields, body: int) -> int:
    return body + sum(len(name) + len(value) for name, value in fields)


_OF_PEERS: Final = {  # cluster_id and workload_name are what Istio's filters of Wasm called them
    "workload": "workload",
    "workload_name": "workload",
    "namespace": "workload_namespace",
    "cluster": "cluster",
    "cluster_id": "cluster",
    "service": "canonical_service",
    "revision": "canonical_revision",
    "app": "app",
    "version": "version",
    "principal": "principal",
}
_OF_WORKLOADS: Final[Mapping[str, Callable[[Workload], str]]] = {
    "name": lambda it: it.name,
    "type": lambda it: it.kind.value.lower(),
}
_OF_NODE: Final[Mapping[str, Callable[[Workload], str]]] = {
    "NAME": lambda it: it.name,
    "NAMESPACE": lambda it: it.namespace,
    "CLUSTER_ID": lambda it: it.cluster,
    "NETWORK": lambda it: it.network,
    "NODE_NAME": lambda it: it.node,
    "SERVICE_ACCOUNT": lambda it: it.service_account,
    "WORKLOAD_NAME": lambda it: it.workload_name,
}
_FIELDS: Final[Mapping[str, Callable[[RequestRecord], Fields]]] = {
    "request.headers": lambda it: it.request,
    "response.headers": lambda it: it.response,
    "response.trailers": lambda it: it.trailers,
}
_PSEUDO: Final[Mapping[str, Callable[[RequestRecord], str]]] = {
    ":method": lambda it: it.method,
    ":path": lambda it: it.path,
    ":authority": lambda it: it.authority,
    "host": lambda it: it.authority,
    ":scheme": lambda it: it.scheme,
}
_SIMPLE: Final[Mapping[str, Get]] = {
    "request.path": lambda it: _some(it.record.path),
    "request.url_path": lambda it: _some(it.record.path.partition("?")[0]),
    "request.query": lambda it: it.record.path.partition("?")[2],
    "request.host": lambda it: _some(it.record.authority),
    "request.scheme": lambda it: _some(it.record.scheme),
    "request.method": lambda it: _some(it.record.method),
    "request.protocol": lambda it: _some(it.record.protocol),
    "request.id": lambda it: _some(it.record.request_id),
    "request.useragent": lambda it: _some(it.record.user_agent),
    "request.referer": _header(b"referer"),
    "request.duration": lambda it: timedelta(seconds=it.record.duration_seconds),
    "request.size": lambda it: it.record.received_bytes,
    "request.total_size": lambda it: _total(it.record.request, it.record.received_bytes),
    "response.code": lambda it: it.record.status,
    "response.code_details": lambda it: _some(it.record.details),
    "response.flags": lambda it: _flags(it.record.flag),
    "response.grpc_status": lambda it: _grpc(it.record.grpc_status),
    "response.size": lambda it: it.record.sent_bytes,
    "response.total_size": lambda it: _total(it.record.response, it.record.sent_bytes),
    "response.backend_latency": lambda it: _milliseconds(it.record.upstream_milliseconds),
    "source.address": lambda it: _some(it.record.downstream_remote),
    "source.port": lambda it: _port(it.record.downstream_remote),
    "destination.address": lambda it: _some(it.record.downstream_local),
    "destination.port": lambda it: _port(it.record.downstream_local),
    "connection.mtls": lambda it: bool(it.record.peer),
    "connection.uri_san_peer_certificate": lambda it: _some(it.record.peer),
    "connection.requested_server_name": lambda it: _some(it.record.server_name),
    "connection.termination_details": lambda it: _some(it.record.termination),
    "upstream.address": lambda it: _some(it.record.upstream_host),
    "upstream.port": lambda it: _port(it.record.upstream_host),
    "upstream.transport_failure_reason": lambda it: _some(it.record.upstream_failure),
    "upstream.request_attempt_count": lambda it: it.record.attempts,
    "xds.cluster_name": lambda it: _some(it.record.upstream_cluster),
    "xds.route_name": lambda it: _some(it.record.route),
}
