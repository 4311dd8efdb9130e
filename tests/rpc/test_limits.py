"""Limits of connections."""

from __future__ import annotations

from ztunnel.rpc.limits import CLIENT, SERVER


def test_a_client_takes_what_istios_ztunnel_takes_and_a_server_less() -> None:
    assert CLIENT.message_bytes == 200 << 20
    assert (CLIENT.ping_seconds, CLIENT.pong_seconds, CLIENT.connect_seconds) == (30, 10, 5)
    assert SERVER.message_bytes < CLIENT.message_bytes
    assert SERVER.streams * SERVER.window_bytes < 8 << 20
