"""Lines of requests: Envoy's words in Envoy's order, and nothing of a peer's that leaves its place."""

from __future__ import annotations

import json
import shlex

from hypothesis import given
from hypothesis import strategies as st

from tests.telemetry.records import changed, record_of
from ztunnel.telemetry.request_log import RequestRecord, render_request, render_request_json

FULL = record_of(
    time_ns=1_790_000_000_123_456_789, method="GET", path="/a?b", protocol="HTTP/1.1", status=503, flag="UF",
    details="upstream_reset_before_response_started{connection_failure|no_route}",
    upstream_failure="no route",
    received_bytes=1, sent_bytes=2, duration_seconds=0.0123, upstream_milliseconds=4, forwarded_for="1.2.3.4",
    user_agent="curl/8", request_id="an-id", authority="web:80", upstream_host="10.0.0.3:8080",
    upstream_cluster="inbound-vip|80|http|web.shop", downstream_local="10.1.0.1:80",
    downstream_remote="[fd00::1]:41000", route="default",
)  # fmt: skip


def test_a_line_is_envoys() -> None:
    assert render_request(FULL) == (
        '[2026-09-21T14:13:20.123Z] "GET /a?b HTTP/1.1" 503 UF '
        'upstream_reset_before_response_started{connection_failure|no_route} - "no route" 1 2 12 4 "1.2.3.4" '
        '"curl/8" "an-id" "web:80" "10.0.0.3:8080" inbound-vip|80|http|web.shop - 10.1.0.1:80 '
        "[fd00::1]:41000 - default"
    )


def test_what_is_not_known_is_a_dash() -> None:
    line = render_request(RequestRecord(0))
    assert line == '[1970-01-01T00:00:00.000Z] "- - -" 0 - - - "-" 0 0 0 - "-" "-" "-" "-" "-" - - - - - -'
    entry = json.loads(render_request_json(RequestRecord(0)))
    assert entry["response_flags"] == "-"
    assert entry["method"] is entry["upstream_service_time"] is entry["route_name"] is None


def test_as_json_it_says_the_same() -> None:
    entry = json.loads(render_request_json(FULL))
    assert (entry["method"], entry["path"], entry["response_code"]) == ("GET", "/a?b", 503)
    assert entry["start_time"] == "2026-09-21T14:13:20.123Z"
    assert entry["upstream_transport_failure_reason"] == "no route"
    assert (entry["duration"], entry["upstream_service_time"]) == (12, 4)


@given(st.text(max_size=40), st.text(max_size=40))
def test_nothing_leaves_its_place(one: str, other: str) -> None:
    record = changed(FULL, path=one, user_agent=other, authority=one, request_id=other, details=one)
    line = render_request(record)
    assert line.isprintable()
    assert len(shlex.split(line)) == len(shlex.split(render_request(FULL)))
    assert json.loads(render_request_json(record))["user_agent"] == (other or None)
