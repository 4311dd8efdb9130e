from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ztunnel.model.port import port_beside, ports_instead

PORTS = st.integers(1, 65535)


@given(PORTS)
def test_the_port_beside_is_another_one_of_the_same_class(port):
    other = port_beside(port)
    assert other != port
    assert 0 < other < 65536
    assert (other < 1024) == (port < 1024)


@given(PORTS)
def test_the_port_beside_is_none_that_clients_call_from(port):
    other = port_beside(port)
    assert other < 32768
    assert not 512 <= port < 1024 or other < 512


def test_ports_that_follow_each_other_have_others_beside_them():
    beside = {port_beside(port) for port in range(32768, 32768 + 16384)}
    assert len(beside) == 16384


@given(PORTS)
def test_in_the_place_of_a_privileged_port_another_one_is_tried_first(port):
    assert ports_instead(port) == ([port_beside(port), 0] if port < 1024 else [0])
    assert ports_instead(0) == [0]
