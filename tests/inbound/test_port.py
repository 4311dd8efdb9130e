from __future__ import annotations

from ztunnel.inbound.port import SparePorts


def test_spare_ports_are_odd_and_come_again_as_late_as_possible():
    spares = SparePorts(60997)
    assert spares.take(3) == (60997, 60999, 32769)
    taken = [port for _ in range(14115) for port in spares.take(1)]
    assert len(set(taken)) == 14115
    assert all(port % 2 and 32768 < port < 61000 for port in taken)
    assert spares.take(1) == (32769,)
