"""Spans as OTLP has them in JSON."""

from __future__ import annotations

import json

from ztunnel.telemetry.span import Span, render_spans

ONE = Span("4b" * 16, "00f067aa0ba902b7", "", "web:80/*", 5, 7, (("a", "b"), ("n", 3), ("none", "")))


def test_a_request_of_otlp() -> None:
    spans = [ONE, ONE._replace(parent_id="aa" * 8, is_error=True)]
    found = json.loads(render_spans(spans, {"service.name": "wp.shop", "k8s.pod.name": ""}, "0.1"))
    (whose,) = found["resourceSpans"]
    assert whose["resource"] == {"attributes": [{"key": "service.name", "value": {"stringValue": "wp.shop"}}]}
    (scope,) = whose["scopeSpans"]
    assert scope["scope"] == {"name": "ztunnel", "version": "0.1"}
    first, second = scope["spans"]
    assert first == {
        "traceId": "4b" * 16, "spanId": "00f067aa0ba902b7", "name": "web:80/*", "kind": 2,
        "startTimeUnixNano": "5", "endTimeUnixNano": "7",
        "attributes": [
            {"key": "a", "value": {"stringValue": "b"}}, {"key": "n", "value": {"intValue": "3"}},
        ],
    }  # fmt: skip
    assert second == {**first, "parentSpanId": "aa" * 8, "status": {"code": 2}}


def test_long_texts_are_cut_and_every_text_is_json() -> None:
    evil = Span("1", "2", "", "n" * 999, 0, 0, (("path", "/" + "a" * 999), ("x", '\0\ud800\n"')))
    found = json.loads(render_spans([evil], {}, ""))["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert len(found["name"]) == 256
    assert [len(each["value"]["stringValue"]) for each in found["attributes"]] == [256, 4]
