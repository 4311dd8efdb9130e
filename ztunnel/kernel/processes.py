"""Which process holds a port of a pod, by what /proc shows."""

from __future__ import annotations

import os
from pathlib import Path

from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.sockets import TcpState, connections


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
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and wanted and _has(process, namespace, wanted):
            return f"{_name(process)} (pid {process.name})"
    return ""


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
