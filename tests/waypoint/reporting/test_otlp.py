"""Messages of OTLP, as OpenTelemetry's own library reads them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.telemetry.test_span import ONE
from ztunnel.errors import PeerError
from ztunnel.telemetry.span import CLIENT, render_spans
from ztunnel.waypoint.reporting.otlp import LogEntry, encode_logs, encode_spans, refused


def test_spans_are_what_the_library_reads() -> None:
    spans = [ONE, ONE._replace(parent_id="aa" * 8, is_error=True, kind=CLIENT)]
    octets = encode_spans(spans, {"service.name": "wp.shop", "k8s.pod.name": ""}, "0.1")
    request = ExportTraceServiceRequest.FromString(octets)
    (whose,) = request.resource_spans
    assert [(each.key, each.value.string_value) for each in whose.resource.attributes] == [
        ("service.name", "wp.shop")
    ]
    (scope,) = whose.scope_spans
    assert (scope.scope.name, scope.scope.version) == ("ztunnel", "0.1")
    first, second = scope.spans
    assert (first.trace_id.hex(), first.span_id.hex(), first.parent_span_id) == (*ONE[:2], b"")
    assert (first.name, first.kind, first.start_time_unix_nano, first.end_time_unix_nano) == (
        "web:80/*", 2, 5, 7,
    )  # fmt: skip
    assert [(each.key, each.value.string_value or each.value.int_value) for each in first.attributes] == [
        ("a", "b"), ("n", 3),
    ]  # fmt: skip
    assert (second.parent_span_id.hex(), second.kind, second.status.code) == ("aa" * 8, 3, 2)
    assert first.status.code == 0


def test_texts_are_cut_and_every_text_can_be_sent() -> None:
    evil = ONE._replace(trace_id="4b" * 8, name="n" * 999, attributes=(("x", "\0\ud800\n"), ("y", "z" * 999)))
    octets = encode_spans([evil], {}, "", longest=10)
    (span,) = ExportTraceServiceRequest.FromString(octets).resource_spans[0].scope_spans[0].spans
    assert span.name == "n" * 10
    assert [each.value.string_value for each in span.attributes] == ["\0?\n", "z" * 10]
    assert span.trace_id == b"\0" * 8 + b"\x4b" * 8


@pytest.mark.parametrize("encode", [encode_spans, render_spans])
def test_names_of_tags_and_who_reports_are_not_cut_by_how_long_tags_may_be(
    encode: Callable[..., bytes],
) -> None:
    """A `maxTagLength` of 20 is about what requests say."""
    name = "istio.destination_canonical_service"
    octets = encode([ONE._replace(attributes=((name, "z" * 30),))], {name: "w" * 30}, "", longest=20)
    if encode is render_spans:
        request = Parse(octets, ExportTraceServiceRequest())
    else:
        request = ExportTraceServiceRequest.FromString(octets)
    (whose,) = request.resource_spans
    (own,), (tag,) = whose.resource.attributes, whose.scope_spans[0].spans[0].attributes
    assert (own.key, own.value.string_value) == (name, "w" * 30)
    assert (tag.key, tag.value.string_value) == (name, "z" * 20)


def test_log_records_are_what_the_library_reads() -> None:
    entry = LogEntry(5, "a line", (("code", 200), ("path", "/")), "4b" * 16, "aa" * 8)
    octets = encode_logs([entry, LogEntry(6, "another")], {"service.name": "wp"}, "1", "otel_envoy_accesslog")
    (whose,) = ExportLogsServiceRequest.FromString(octets).resource_logs
    names = {each.key: each.value.string_value for each in whose.resource.attributes}
    assert names == {"service.name": "wp", "log_name": "otel_envoy_accesslog"}
    first, second = whose.scope_logs[0].log_records
    assert (first.time_unix_nano, first.body.string_value, first.trace_id.hex()) == (5, "a line", "4b" * 16)
    assert [(each.key, each.value.string_value or each.value.int_value) for each in first.attributes] == [
        ("code", 200), ("path", "/"),
    ]  # fmt: skip
    assert (second.body.string_value, second.trace_id) == ("another", b"")


def test_a_collector_may_take_a_part() -> None:
    assert refused(b"") == (0, "")
    part = ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=3, error_message="too old")
    )
    assert refused(part.SerializeToString()) == (3, "too old")
    with pytest.raises(PeerError):
        refused(b"\xff\xff")
