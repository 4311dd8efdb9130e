from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ztunnel.inbound.port import SparePorts, port_beside

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


def test_spare_ports_are_odd_and_come_again_as_late_as_possible():
    spares = SparePorts(60997)
    assert spares.take(3) == (60997, 60999, 32769)
    taken = [port for _ in range(14115) for port in spares.take(1)]
    assert len(set(taken)) == 14115
    assert all(port % 2 and 32768 < port < 61000 for port in taken)
    assert spares.take(1) == (32769,)
