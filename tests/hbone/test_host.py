"""What drives an HTTP/2 connection in the product, and in tests, is a host."""

from __future__ import annotations

from tests.hbone.recording import RecordingHost
from ztunnel.hbone.host import Host
from ztunnel.hbone.limits import Role


def test_the_recording_host_is_one() -> None:
    host: Host = RecordingHost(Role.CLIENT)
    assert host.admits()
