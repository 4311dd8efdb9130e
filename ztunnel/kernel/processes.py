"""Processes, by what /proc shows: which one holds a port of a pod, and which ones have a name."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.sockets import TcpState, connections

_START_TIME = 19
"""In /proc/<pid>/stat, counted from 0 after the name, in ticks since the machine's start (proc(5))."""


def holder(path: str, port: int) -> str:
    """Who listens on `port` in the network namespace at `path`: `nginx (pid 4711)`; empty if that cannot be
    seen. Blocks: it looks at every process of the machine, and at the files of those in that namespace."""
    try:
        with NetworkNamespace.open(path) as netns:
            listening = connections(netns, (TcpState.LISTEN,))
            inodes = {each.inode for each in listening if each.local.port == port}
            namespace = netns.inode
    except OSError:
        return ""
    wanted = {f"socket:[{inode}]" for inode in inodes if inode}
    with suppress(OSError):  # no descriptor is left
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and wanted and _has(process, namespace, wanted):
                return f"{_name(process)} (pid {process.name})"
    return ""


def named(names: Collection[str], namespace: int, proc: Path = Path("/proc")) -> frozenset[int]:
    """The processes of root that have one of these names and are in the network namespace with this inode.
    Blocks: 10 ms where 500 processes run. Raises OSError: no descriptor is left."""
    found = set()
    for process in proc.iterdir():
        if process.name.isdigit() and _name(process) in names:
            with suppress(OSError):  # it has ended
                if process.stat().st_uid == 0 and (process / "ns/net").stat().st_ino == namespace:
                    found.add(int(process.name))
    return frozenset(found)


def began(place: str) -> float:
    """When the process of `/proc/<pid>/...` began, in seconds since the machine's start, to 10 ms; now where
    it has ended meanwhile."""
    try:
        stat = Path(*Path(place).parts[:3], "stat").read_text()
    except OSError:
        return since_boot()
    return int(stat.rpartition(")")[2].split()[_START_TIME]) / os.sysconf("SC_CLK_TCK")


def since_boot() -> float:
    """Seconds since the machine's start, those in which it slept among them, as processes have it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _has(process: Path, namespace: int, wanted: set[str]) -> bool:
    try:
        if (process / "ns/net").stat().st_ino != namespace:
            return False
        return any(_target(each) in wanted for each in (process / "fd").iterdir())
    except OSError:  # it has ended
        return False


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "a process"
