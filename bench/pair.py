"""The processes of contestants: how they are started and ended, and what they use."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Unmeasured
from ztunnel.demo import run
from ztunnel.demo.operate import Laboratory

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_END_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class End:
    """A process beside a client or a server.

    Attributes:
        pod: where it runs.
        start: its command, which stays in the foreground.
        stop: a command that undoes what the start has left in the pod, after SIGTERM; None for none.
        log: where its output goes.
        measured: whether it is on the way between two nodes.
    """

    pod: str
    start: tuple[str, ...]
    log: Path
    stop: tuple[str, ...] | None = None
    measured: bool = True


class Pair:
    """A pair of proxies that are no part of the laboratory; `close` ends them."""

    def __init__(self, laboratory: Laboratory, client: End, servers: Sequence[End]) -> None:
        """Starts nothing."""
        self._laboratory = laboratory
        self._ends = (client, *servers)
        self._running: list[tuple[End, subprocess.Popen[bytes]]] = []

    def start(self) -> None:
        """All ends, which may not serve yet. `close` undoes it."""
        for end in self._ends:
            with end.log.open("ab") as log:
                process = self._laboratory.popen(end.pod, end.start, stdout=log, stderr=log)
            self._running.append((end, process))

    def close(self) -> None:
        """All ends are gone, and what they have left."""
        running, self._running = self._running, []
        for end, process in reversed(running):
            for pid in reversed(family([process.pid])):
                _signal(pid, signal.SIGTERM)
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                for pid in reversed(family([process.pid])):
                    _signal(pid, signal.SIGKILL)
                process.wait()
            if end.stop is not None:
                ended = self._laboratory.exec(end.pod, end.stop, timeout=_END_SECONDS)
                if ended.returncode:
                    raise Unmeasured(f"{end.pod}: {end.stop}: {ended.stdout}{ended.stderr}")

    def restart(self) -> None:
        """As new."""
        self.close()
        self.start()

    def pids(self) -> tuple[Sequence[int], Sequence[int]]:
        """Those at the client's end, and those at the far server's. Raises Unmeasured: one has ended."""
        for end, process in self._running:
            if process.poll() is not None:
                tail = end.log.read_text(errors="replace")[-2000:]
                raise Unmeasured(f"{end.start[0]} in {end.pod} ended with {process.returncode}: {tail}")
        (_, client), *servers = self._running
        return family([client.pid]), family(each.pid for end, each in servers if end.measured)


class NodeProxies:
    """Our own, of two nodes."""

    def __init__(self, laboratory: Laboratory, nodes: tuple[str, str] = ("node-1", "node-2")) -> None:
        """The client's node, and the server's."""
        self._laboratory = laboratory
        self._nodes = nodes

    def pids(self) -> tuple[Sequence[int], Sequence[int]]:
        """Those of the client's node, and those of the server's."""
        first, second = (run.processes(self._laboratory.names.proxy_cgroup(node)) for node in self._nodes)
        return first, second

    def restart(self) -> None:
        """Others, once those from before are dead; they are ready."""
        for node in self._nodes:
            self._laboratory.kill_node(node)
            self._laboratory.start_node(node)


def pair_on(stack: ExitStack, pair: Pair) -> Pair:
    """Start a pair for as long as the stack lasts."""
    stack.callback(pair.close)
    pair.start()
    return pair


def family(pids: Iterable[int]) -> list[int]:
    """These processes and all that came of them, each after its parent."""
    found = list(pids)
    for pid in found:  # it grows meanwhile
        for file in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                found += map(int, file.read_text().split())
            except OSError:
                continue
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """In user and kernel mode, of all their threads (proc(5), /proc/PID/stat). Raises Unmeasured."""
    total = 0
    for pid in pids:
        fields = _read(pid, "stat").rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def resident_bytes(pids: Iterable[int]) -> int:
    """Of all of them together. Raises Unmeasured."""
    return sum(int(_read(pid, "statm").split()[1]) * _PAGE_BYTES for pid in pids)


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError as error:
        raise Unmeasured(f"process {pid} has ended") from error


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
