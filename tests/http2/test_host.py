"""What drives an HTTP/2 connection in the product, and in tests, is a host."""

from __future__ import annotations

from tests.http2.recording import RecordingHost
from ztunnel.http2.host import Host, Nobody
from ztunnel.http2.limits import Role


def test_the_recording_host_is_one() -> None:
    host: Host = RecordingHost(Role.CLIENT)
    assert host.admits()


def test_nobody_is_one_and_admits_nobody() -> None:
    host: Host = Nobody()
    assert not host.admits()
    host.push(b"frames")
    host.on_opened(host.on_request(()))
    host.on_settings()
    host.on_pong(b"")
    host.on_goaway(0)
    host.on_window()
