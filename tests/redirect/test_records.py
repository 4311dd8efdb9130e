from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernel.lab import original
from tests.redirect.test_layout import endpoints, numbers
from ztunnel.model.address import pack16
from ztunnel.redirect import layout, records


@given(endpoints, endpoints, endpoints, numbers, st.sampled_from(records.RecordEvent), st.booleans())
def test_a_record_is_read(source, destination, asked, number, event, established) -> None:
    packed = records.RECORD.pack(
        1, number, 3, 4, 5, pack16(source.ip), pack16(destination.ip), source.port, destination.port,
        pack16(asked.ip), asked.port, 6, 7, 8, event, records.RecordRole.SERVER, established,
    )  # fmt: skip
    record = records.pull_record(packed)
    assert (record.source, record.destination) == (source, destination)
    assert record.asked == original(str(asked.ip), asked.port)
    assert (record.event, record.role, record.established) == (event, records.RecordRole.SERVER, established)
    assert (record.time_ns, record.cookie, record.socket, record.sent_bytes, record.duration_ns) == (
        1,
        number,
        3,
        4,
        5,
    )
    assert (record.srtt_us, record.retransmits, record.policy) == (6, 7, 8)
    assert record.flow == layout.push_tuple(source, destination)
    assert record.way == records.push_way(source, destination, asked)


@pytest.mark.parametrize(
    ("kind", "port", "role"),
    [
        (layout.IntentKind.CAPTURED, 1, None),
        (layout.IntentKind.ASTRAY, 1, None),
        (layout.IntentKind.DIRECT, 0, None),
        (layout.IntentKind.DIRECT, 1, records.RecordRole.CLIENT),
        (layout.IntentKind.SERVED, 1, records.RecordRole.SERVER),
    ],
)
def test_only_direct_flows_whose_syn_has_left_are_live(kind, port, role) -> None:
    ip = pack16(IPv4Address("10.0.0.1"))
    packed = layout.INTENT.pack(ip, 80, ip, 81, 7, 8, 9, 10, ip, ip, port, 82, kind, 1, 1)
    flow = records.pull_live_flow(99, packed)
    assert (flow and flow.role) == role
    if flow:
        assert (flow.socket, flow.cookie, flow.since_ns, flow.established) == (99, 7, 10, True)
        assert (flow.source.port, flow.destination.port, flow.asked.port) == (1, 82, 80)
        assert flow.flow == layout.push_tuple(flow.source, flow.destination)
        assert flow.way == records.push_way(flow.source, flow.destination, flow.asked)
