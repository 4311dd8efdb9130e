"""Writes what pods see as `/etc/hosts`, and lets one command at a time change a laboratory."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ztunnel.demo.cluster import Pod
from ztunnel.demo.names import RUN, Names

_RESOLV_CONF = "# No name server: the names of services stand in /etc/hosts.\n"


@contextmanager
def locked(names: Names) -> Iterator[None]:
    """One command at a time changes a laboratory; a second one waits here."""
    with _lock(names):
        yield


def _lock(names: Names) -> IO[str]:
    """Holds until it is closed. `down` removes the file: whoever waited asks again, for the next one."""
    while True:
        RUN.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            lock = names.lock.open("w")
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _inode(names.lock) == os.fstat(lock.fileno()).st_ino:
                return lock
            lock.close()


def write_hosts(names: Names, hosts: Iterable[tuple[Pod, str]]) -> None:
    """The files that pods see as /etc/hosts and /etc/resolv.conf; those of other pods are removed.

    They are written in place: a mount holds on to the file, not to its name.
    """
    names.all_hosts.mkdir(parents=True, exist_ok=True)
    texts = {names.hosts(pod.namespace, pod.name): text for pod, text in hosts}
    for path, text in ((names.resolv_conf, _RESOLV_CONF), *texts.items()):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if os.pread(fd, os.fstat(fd).st_size + 1, 0) != text.encode():
                os.ftruncate(fd, os.pwrite(fd, text.encode(), 0))
        finally:
            os.close(fd)
    for path in names.all_hosts.iterdir():
        if path not in texts:
            path.unlink()


def _inode(path: Path) -> int:
    return path.stat().st_ino if path.exists() else 0
