"""The span of a request, out of what its log line and its metrics say (Envoy's HttpTracerUtility and the tags
that Istio's waypoint adds)."""

from __future__ import annotations

from ztunnel.l7.trace import Context
from ztunnel.telemetry.labels import UNKNOWN
from ztunnel.telemetry.request_counts import RequestLabels
from ztunnel.telemetry.request_log import RequestRecord
from ztunnel.telemetry.span import Attribute, Span

_PEERS = ("workload", "canonical_service", "canonical_revision", "app", "version", "principal")
_FIRST_ERROR = 500


def span_of(record: RequestRecord, context: Context, labels: RequestLabels) -> Span:
    """The span that `context` names; it is of the called service, as its name says."""
    service, port = labels.destination_service, record.downstream_local.rpartition(":")[2]
    called = service if service != UNKNOWN else record.downstream_local.rpartition(":")[0]
    ended_ns = record.time_ns + int(record.duration_seconds * 1e9)
    return Span(
        context.trace_id,
        context.span_id,
        context.parent_id,
        f"{called}:{port}/*",
        record.time_ns,
        ended_ns,
        (*_of_request(record), *_of_peers(labels)),
        record.status >= _FIRST_ERROR or record.status == 0 or record.grpc_status not in ("", "0"),
    )


def _of_request(record: RequestRecord) -> tuple[Attribute, ...]:
    return (
        ("component", "proxy"),
        ("http.method", record.method),
        ("http.url", f"http://{record.authority}{record.path}"),
        ("http.protocol", record.protocol),
        ("http.status_code", str(record.status)),
        ("grpc.status_code", record.grpc_status),
        ("request_size", str(record.received_bytes)),
        ("response_size", str(record.sent_bytes)),
        ("response_flags", record.flag),
        ("user_agent", record.user_agent),
        ("guid:x-request-id", record.request_id),
        ("peer.address", record.downstream_remote.rpartition(":")[0].strip("[]")),
        ("upstream_cluster", record.upstream_cluster),
        ("upstream_address", record.upstream_host),
    )


def _of_peers(labels: RequestLabels) -> tuple[Attribute, ...]:
    known = labels._asdict()
    found = [("istio.source_namespace", known["source_workload_namespace"])]
    found += [("istio.destination_namespace", known["destination_workload_namespace"])]
    for side in ("source", "destination"):
        found += [(f"istio.{side}_{name}", known[f"{side}_{name}"]) for name in _PEERS]
    return tuple((name, value) for name, value in found if value != UNKNOWN)
