from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.redirect.test_layout import endpoints, ips, numbers
from ztunnel.model.address import Endpoint, IPAddress, pack16
from ztunnel.redirect.outside import OUTSIDE, OutsideCall, pull_outside
from ztunnel.redirect.records import RecordEvent


def push(call: OutsideCall, source: IPAddress, destination: Endpoint) -> bytes:
    hosts = pack16(source), pack16(destination.ip), call.source_port, destination.port
    times = call.cookie, call.socket, call.since_ns, call.time_ns, call.sent_bytes, call.received_bytes
    return OUTSIDE.pack(*times, *hosts, call.error, call.event or 0, call.established, call.exact)


calls = st.builds(
    OutsideCall,
    *[numbers] * 6,
    way=st.just(b""),
    source_ip=st.just(b""),
    source_port=st.integers(1, 65535),
    error=st.integers(0, 200),
    event=st.sampled_from([None, RecordEvent.OPENED, RecordEvent.ENDED]),
    established=st.booleans(),
    exact=st.booleans(),
)


@given(calls, ips, endpoints)
def test_a_call_comes_back(call: OutsideCall, source: IPAddress, destination: Endpoint) -> None:
    found = pull_outside(push(call, source, destination))
    assert found._replace(way=b"", source_ip=b"") == call
    assert found.source == Endpoint(source, call.source_port)
    assert found.destination == destination


@given(calls, ips, endpoints)
def test_before_the_syn_there_is_no_source(
    call: OutsideCall, source: IPAddress, destination: Endpoint
) -> None:
    assert pull_outside(push(call._replace(source_port=0), source, destination)).source is None


@given(calls, calls, ips, endpoints, endpoints)
def test_calls_of_one_pod_to_one_destination_have_one_way(
    one: OutsideCall, other: OutsideCall, source: IPAddress, here: Endpoint, there: Endpoint
) -> None:
    first = pull_outside(push(one, source, here))
    second = pull_outside(push(other, source, there))
    assert (first.way == second.way) == (one.cookie == other.cookie and here == there)
