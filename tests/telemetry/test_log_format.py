"""Formats of an operator: Envoy's operators, each with its value, and none that we do not know."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.telemetry.records import changed
from tests.telemetry.test_request_log import FULL as BASE
from ztunnel.telemetry.log_format import parse_format
from ztunnel.telemetry.request_log import RequestRecord, render_request, render_request_json

FULL = changed(
    BASE, request=((b"user-agent", b"curl/8"), (b"x-a", b"1"), (b"x-a", b"2"), (b"x-request-id", b"an-id"),
             (b"x-forwarded-for", b"1.2.3.4")),
    response=((b":status", b"503"), (b"x-envoy-upstream-service-time", b"4"), (b"server", b"mine")),
    trailers=((b"grpc-status", b"5"),), scheme="https", grpc_status="5", attempts=2, peer="spiffe://a/ns/b/sa/c",
)  # fmt: skip
ISTIOS = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% '
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "
    '"%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% '
    '%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% '
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% "
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)


def test_istios_own_format_gives_the_line_that_we_write_without_one() -> None:
    for record in (FULL, RequestRecord(0)):
        assert parse_format(ISTIOS)(record) == render_request(record)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain 100%%", "plain 100%"),
        ("%START_TIME(%s.%3f)%", "1790000000.123"),
        ("%START_TIME(%Y/%m/%dT%H:%M:%S%9f)%", "2026/09/21T14:13:20123456789"),
        ("%REQ(X-B?X-A)%", "1,2"),
        ("%REQ(X-B)%", "-"),
        ("%REQ(:METHOD):2%", "GE"),
        ("%REQ(:scheme)%", "https"),
        ("%RESP(:STATUS)% %RESP(server)%", "503 mine"),
        ("%TRAILER(GRPC-STATUS)% %GRPC_STATUS% %GRPC_STATUS_NUMBER%", "5 NotFound 5"),
        ("%UPSTREAM_REQUEST_ATTEMPT_COUNT% %DOWNSTREAM_PEER_URI_SAN%", "2 spiffe://a/ns/b/sa/c"),
        ("%DOWNSTREAM_LOCAL_PORT% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "80 fd00::1"),
        ("%RESPONSE_DURATION%ms", "4ms"),
    ],
)
def test_an_operator_has_its_value(text: str, line: str) -> None:
    assert parse_format(text)(FULL) == line


def test_as_json_values_keep_their_types_and_what_is_not_known_is_null() -> None:
    text = json.dumps({
        "code": "%RESPONSE_CODE%", "who": {"agent": "%REQ(USER-AGENT)%", "not": "%REQ(X-NO)%"},
        "both": "%REQ(:METHOD)% %REQ(X-NO)%", "list": ["%BYTES_SENT%", 7, True, None],
        "start": "%START_TIME%",
    })  # fmt: skip
    assert json.loads(parse_format(text)(FULL)) == {
        "code": 503, "who": {"agent": "curl/8", "not": None}, "both": "GET -", "list": [2, 7, True, None],
        "start": "2026-09-21T14:13:20.123Z",
    }  # fmt: skip
    assert json.loads(render_request_json(FULL))["start_time"] == "2026-09-21T14:13:20.123Z"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("100%", "percent sign is written %%"),
        ("%NO_SUCH%", "%NO_SUCH% is not known"),
        ("%REQ%", "takes the name of a field"),
        ("%REQ(a?b?c)%", "takes the name of a field"),
        ("%DURATION(x)%", "takes no argument"),
        ("%DYNAMIC_METADATA(a:b)%", "is not known"),
        ('{"a": ', "is to be JSON"),
        ("[" * 10 and '{"a":' * 10 + "1" + "}" * 10, "deeper than 8"),
        ("{" * 5000, "is to be JSON"),
        ("x" * 20_000, "more than 16384"),
    ],
)
def test_what_is_no_format_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_format(text)


@given(st.text(max_size=40), st.binary(max_size=40))
def test_nothing_leaves_its_line_or_its_quotes(text: str, octets: bytes) -> None:
    record = changed(FULL, path=text, upstream_failure=text, request=((b"user-agent", octets),))
    line = parse_format('"%REQ(:PATH)%" "%REQ(USER-AGENT)%" "%UPSTREAM_TRANSPORT_FAILURE_REASON%"')(record)
    assert line.isprintable()
    assert line.replace("\\\\", "").replace('\\"', "").count('"') == 6
    entry = parse_format('{"a": "%REQ(:PATH)%", "b": "x%REQ(USER-AGENT)%"}')(record)
    assert entry.isprintable()
    assert json.loads(entry)["a"] == (text or None)
