"""The span of a request, out of what its log line and its metrics say (Envoy's HttpTracerUtility and the tags
that Istio's waypoint adds)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ztunnel.l7.policy.rule import Tried
from ztunnel.l7.trace import Context
from ztunnel.model.http_policy import HttpAction
from ztunnel.model.mesh_defaults import CustomTag, TagSource
from ztunnel.telemetry.labels import UNKNOWN
from ztunnel.telemetry.log_format import parse_plain
from ztunnel.telemetry.request_counts import RequestLabels
from ztunnel.telemetry.request_log import RequestRecord
from ztunnel.telemetry.span import Attribute, Span

_PEERS = ("workload", "canonical_service", "canonical_revision", "app", "version", "principal")
_FIRST_ERROR = 500
_TRIED = (HttpAction.ALLOW, HttpAction.DENY)


class SpanTag(NamedTuple):
    """A tag of an operator's making; empty where a request has no value for it."""

    name: str
    value: Callable[[RequestRecord], str]


def span_tags(tags: Iterable[CustomTag], environment: Mapping[str, str]) -> tuple[SpanTag, ...]:
    """Those of Telemetry's `customTags`. Raises ValueError: a format is none."""
    return tuple(SpanTag(tag.name, _value_of(tag, environment)) for tag in tags)


def _value_of(tag: CustomTag, environment: Mapping[str, str]) -> Callable[[RequestRecord], str]:
    if tag.source is TagSource.FORMATTER:
        return parse_plain(tag.text)
    if tag.source is TagSource.HEADER:
        header = parse_plain(f"%REQ({tag.text})%")
        return lambda record: header(record) or tag.default
    text = tag.text
    if tag.source is TagSource.ENVIRONMENT:
        text = environment.get(tag.text) or tag.default
    return lambda record: text


def span_of(
    record: RequestRecord,
    context: Context,
    labels: RequestLabels,
    tags: Iterable[SpanTag] = (),
    istio_tags: bool = True,
) -> Span:
    """The span that `context` names; it is of the called service, as its name says. `istio_tags`: it tells
    who calls whom."""
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
        (
            *_of_request(record),
            *(_of_peers(labels) if istio_tags else ()),
            *((tag.name, tag.value(record)) for tag in tags),
        ),
        record.status >= _FIRST_ERROR or record.status == 0 or record.grpc_status not in ("", "0"),
    )


def with_trials(span: Span, trials: Iterable[Tried]) -> Span:
    """The same, with what policies under trial would have done: those of ALLOW together, and those of DENY
    (istio/istio pilot/pkg/networking/core/tracing.go: optionalPolicyTags)."""
    rules: dict[HttpAction, list[str]] = {}
    for one in trials:
        if one.action in _TRIED:
            rules.setdefault(one.action, []).extend([one.rule] if one.rule else [])
    tags: list[Attribute] = []
    for action, names in rules.items():
        begin, met = f"istio.authorization.dry_run.{action.name.lower()}_policy", bool(names)
        tags += [(f"{begin}.name", min(names))] if names else []
        tags.append((f"{begin}.result", "allowed" if met is (action is HttpAction.ALLOW) else "denied"))
    return span._replace(attributes=(*span.attributes, *tags))


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
