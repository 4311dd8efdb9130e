"""Named namespaces are what `ip netns` makes of them, and leave nothing."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from tests.kernel.lab import unique
from ztunnel.kernel import named
from ztunnel.kernel.netns import NetworkNamespace, current

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def listed() -> list[str]:
    shown = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return [line.split()[0] for line in shown.splitlines()]


def test_a_namespace_is_made_named_used_and_removed() -> None:
    path = Path("/run/netns") / unique()
    with current() as before:
        named.create(path)
    with current() as after, NetworkNamespace.open(path) as made:
        assert after.inode == before.inode  # the thread is back where it was
        assert made.inode != before.inode
    assert path.name in listed()
    code = "import os; print(os.stat('/proc/self/ns/net').st_ino)"
    inside = ["ip", "netns", "exec", path.name, "python3", "-c", code]
    assert int(subprocess.run(inside, capture_output=True, text=True, check=True).stdout) == made.inode
    named.remove(path)
    assert not path.exists()
    assert path.name not in listed()


def test_one_that_is_there_stays_as_it_is() -> None:
    path = Path("/run/netns") / unique()
    named.create(path)
    inode = path.stat().st_ino
    with pytest.raises(FileExistsError):
        named.create(path)
    assert path.stat().st_ino == inode
    named.remove(path)
    with pytest.raises(FileNotFoundError):
        named.remove(path)


def test_a_file_on_which_nothing_is_mounted_is_removed_too(tmp_path: Path) -> None:
    path = tmp_path / "left"
    path.touch()
    named.remove(path)
    assert not path.exists()


def test_other_threads_stay_where_they_are() -> None:
    path, gone, seen = Path("/run/netns") / unique(), threading.Event(), []

    def look() -> None:
        while not gone.is_set():
            seen.append(os.stat("/proc/thread-self/ns/net").st_ino)

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(10):
        named.create(path)
        named.remove(path)
    gone.set()
    thread.join()
    assert set(seen) == {os.stat("/proc/self/ns/net").st_ino}
