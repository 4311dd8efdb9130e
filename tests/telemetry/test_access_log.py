"""The lines are those of Istio's ztunnel, character by character."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import identity, service, workload
from tests.telemetry.records import changed
from ztunnel.model.address import parse_endpoint
from ztunnel.model.connection import Direction, Security
from ztunnel.telemetry.access_log import (
    EarlyDenial,
    Record,
    render_early_denial,
    render_opened,
    render_record,
    render_record_json,
)
from ztunnel.telemetry.journey import Journey
from ztunnel.telemetry.labels import Reporter
from ztunnel.telemetry.level import Level

TIME = 1_787_220_000_123_456_000  # 2026-08-20T10:00:00.123456Z
CLIENT, SERVER = workload("client-7d9"), workload("server-5f4")
SOURCE = parse_endpoint("10.0.1.2:41000")
JOURNEY = Journey(
    Reporter.SOURCE,
    parse_endpoint("10.0.2.3:15008"),
    CLIENT,
    SERVER,
    service("server"),
    identity("default/client"),
    identity("default/server"),
    Security.MUTUAL_TLS,
    "10.0.2.3:8080",
)
OUTBOUND = Record(TIME, SOURCE, JOURNEY, up_bytes=11, down_bytes=22, duration_seconds=0.0039)
ENDS = (
    'src.addr=10.0.1.2:41000 src.workload="client-7d9" src.namespace="default" '
    'src.identity="spiffe://cluster.local/ns/default/sa/client" src.cluster="Kubernetes" '
    "dst.addr=10.0.2.3:15008 dst.hbone_addr=10.0.2.3:8080 "
    'dst.service="server.default.svc.cluster.local" dst.workload="server-5f4" dst.namespace="default" '
    'dst.identity="spiffe://cluster.local/ns/default/sa/server" dst.cluster="Kubernetes" '
)
COMPLETE = "2026-08-20T10:00:00.123456Z\tinfo\taccess\tconnection complete\t"


def test_an_outbound_tunnel_is_logged_as_istio_logs_it():
    line = COMPLETE + ENDS + 'direction="outbound" bytes_sent=11 bytes_recv=22 duration="3ms"'
    assert render_record(OUTBOUND) == line


def test_an_inbound_line_counts_from_its_own_side():
    line = COMPLETE + ENDS + 'direction="inbound" bytes_sent=22 bytes_recv=11 duration="3ms"'
    inbound = replace(JOURNEY, reporter=Reporter.DESTINATION)
    assert render_record(changed(OUTBOUND, journey=inbound)) == line


def test_plain_traffic_to_a_stranger_has_no_identities():
    journey = Journey(Reporter.SOURCE, parse_endpoint("93.184.216.34:443"), CLIENT)
    record = Record(TIME, parse_endpoint("10.0.1.2:41002"), journey, 517, 4096, 0.12)
    assert render_record(record) == (
        COMPLETE + 'src.addr=10.0.1.2:41002 src.workload="client-7d9" src.namespace="default" '
        'src.cluster="Kubernetes" dst.addr=93.184.216.34:443 direction="outbound" '
        'bytes_sent=517 bytes_recv=4096 duration="120ms"'
    )


def test_a_failure_is_an_error_and_says_why_at_the_end():
    error = "connection closed due to policy rejection: allow policies exist, but none allowed"
    record = Record(TIME, SOURCE, Journey(Reporter.DESTINATION, JOURNEY.destination), error=error)
    assert record.level is Level.ERROR
    assert OUTBOUND.level is Level.INFO
    assert render_record(record) == (
        "2026-08-20T10:00:00.123456Z\terror\taccess\tconnection complete\t"
        'src.addr=10.0.1.2:41000 dst.addr=10.0.2.3:15008 direction="inbound" bytes_sent=0 bytes_recv=0 '
        f'duration="0ms" error="{error}"'
    )


def test_an_opening_has_neither_bytes_nor_duration():
    line = "2026-08-20T10:00:00.123456Z\tdebug\taccess\tconnection opened\t" + ENDS + 'direction="outbound"'
    assert render_opened(OUTBOUND) == line
    assert "bytes_sent" not in json.loads(render_opened(OUTBOUND, as_json=True))


def test_an_early_denial_is_a_warning():
    denial = EarlyDenial(
        TIME,
        Direction.INBOUND,
        parse_endpoint("10.0.1.2:5"),
        parse_endpoint("10.0.2.3:15008"),
        "ip mismatch: 10.0.2.3 != 10.0.1.2",
    )
    assert render_early_denial(denial) == (
        "2026-08-20T10:00:00.123456Z\twarn\taccess\tconnection failed\t"
        'src.addr=10.0.1.2:5 dst.addr=10.0.2.3:15008 direction="inbound" '
        'error="ip mismatch: 10.0.2.3 != 10.0.1.2"'
    )
    assert json.loads(render_early_denial(denial, as_json=True))["level"] == "warn"


def test_json_has_the_same_keys_flat():
    entry = json.loads(render_record_json(changed(OUTBOUND, error="why")))
    assert list(entry)[:4] == ["level", "time", "scope", "message"]
    assert (entry["level"], entry["scope"], entry["message"]) == ("error", "access", "connection complete")
    assert entry["time"] == "2026-08-20T10:00:00.123456Z"
    text_keys = [part.partition("=")[0] for part in ENDS.split()]
    assert list(entry)[4:] == [*text_keys, "direction", "bytes_sent", "bytes_recv", "duration", "error"]
    assert (entry["bytes_sent"], entry["duration"], entry["src.addr"]) == (11, "3ms", "10.0.1.2:41000")


def test_an_ipv6_address_stands_in_brackets():
    assert "src.addr=[fd00::1]:5 src.workload=" in render_record(
        changed(OUTBOUND, source=parse_endpoint("[fd00::1]:5"))
    )


@pytest.mark.parametrize("render", [render_record, render_record_json])
@given(*[st.text(st.characters(), min_size=1)] * 4)
def test_no_name_breaks_a_line(render, name, namespace, target, error):
    end = replace(CLIENT, name=name, namespace=namespace, cluster=name)
    called = replace(JOURNEY, source_workload=end, service=service(name), hbone_address=target)
    line = render(changed(OUTBOUND, journey=called, error=error))
    assert len(line.splitlines()) == 1
    assert line.replace("\t", "").isprintable()
    assert line.count("\t") == (4 if render is render_record else 0)
    assert line.encode()
