from __future__ import annotations

import os
import select
import subprocess

import pytest

from tests.kernel.lab import unique
from ztunnel.kernel.mounts import MOUNTED, MountEvents

pytestmark = pytest.mark.root


def test_a_namespace_that_gets_its_name_is_told_once() -> None:
    events, name = MountEvents(), unique()
    waiting = select.epoll()
    try:
        waiting.register(events.fileno(), MOUNTED)
        waiting.poll(0)
        subprocess.run(["ip", "netns", "add", name], check=True)
        assert waiting.poll(5)
        subprocess.run(["ip", "netns", "del", name], check=True)
        assert waiting.poll(5)
    finally:
        waiting.close()
        events.close()


def test_nothing_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    MountEvents().close()
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(FileNotFoundError):
        MountEvents("/proc/self/no-such-file")
