"""Spans as Zipkin has them."""

from __future__ import annotations

import json

from tests.telemetry.test_span import ONE
from ztunnel.telemetry.span import CLIENT, INTERNAL
from ztunnel.telemetry.zipkin import render_zipkin


def test_a_list_of_spans() -> None:
    span = ONE._replace(
        start_ns=5_000_000,
        end_ns=7_500_000,
        parent_id="aa" * 8,
        attributes=(("a", "b"), ("n", 3), ("none", ""), ("peer.address", "fd00::1")),
    )
    (found,) = json.loads(render_zipkin([span], "wp.shop", ["10.0.0.1", "fd00::7", "10.0.0.2"]))
    assert found == {
        "traceId": "4b" * 16,
        "id": "00f067aa0ba902b7",
        "parentId": "aa" * 8,
        "name": "web:80/*",
        "kind": "SERVER",
        "timestamp": 5000,
        "duration": 2500,
        "localEndpoint": {"serviceName": "wp.shop", "ipv4": "10.0.0.1", "ipv6": "fd00::7"},
        "remoteEndpoint": {"ipv6": "fd00::1"},
        "tags": {"a": "b", "n": "3", "peer.address": "fd00::1"},
    }


def test_failures_are_errors_and_kinds_are_zipkins() -> None:
    spans = [ONE._replace(kind=CLIENT, is_error=True), ONE._replace(kind=INTERNAL, end_ns=ONE.start_ns)]
    first, second = json.loads(render_zipkin(spans, "s"))
    assert (first["kind"], first["tags"]["error"]) == ("CLIENT", "true")
    assert "kind" not in second
    assert second["duration"] == 1  # zero is none to Zipkin


def test_texts_are_cut_and_an_address_that_is_none_is_only_a_tag() -> None:
    span = ONE._replace(attributes=(("path", "/" * 999), ("peer.address", "nowhere")))
    (found,) = json.loads(render_zipkin([span], "s", longest=10))
    assert found["tags"] == {"path": "/" * 10, "peer.address": "nowhere"}
    assert "remoteEndpoint" not in found
    assert "parentId" not in found
