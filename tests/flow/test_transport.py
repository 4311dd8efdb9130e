"""What streams within the process have in common."""

from __future__ import annotations

from tests.waypoint.rig import Wire
from ztunnel.flow.transport import HIGH_BYTES, Transport
from ztunnel.hbone.terminate import InnerTunnel


def test_a_tunnel_and_what_tests_play_are_transports() -> None:
    played: Transport = Wire()
    assert played.unsent_bytes == 0
    for name in ("unsent_bytes", "write", "finish", "taken", "abort"):
        assert hasattr(InnerTunnel, name)


def test_what_waits_is_less_than_a_window() -> None:
    assert HIGH_BYTES <= 64 * 1024
