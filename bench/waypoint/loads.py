"""Puts load on a waypoint from its client's pod, and looks at what that costs the waypoint."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.cells import Cell, Load, Route
from bench.figures import Sample, Unmeasured, parse_h2load, parse_wrk
from bench.measure import GRACE_SECONDS, PATIENCE_SECONDS, SCRIPT, run_in
from bench.waypoint.ground import Contestant
from bench.waypoint.rules import ASKED, path
from ztunnel.demo import run
from ztunnel.demo.operate import Laboratory

MIB = 1 << 20
_PATHS = {
    Load.REQUESTS: ":80/",
    Load.BODIES: ":80/mib",
    Load.RULED: f":80{path(ASKED)}",
    Load.STREAMS: ":81/",
    Load.CALLS: ":81/grpc/Say",
}


class Meter:
    """What one waypoint has used up, read from the kernel."""

    def __init__(self, laboratory: Laboratory, contestant: Contestant) -> None:
        """Memory is counted from here on."""
        pod = contestant.waypoint
        self._cgroup = laboratory.names.pod_cgroup(pod.node.name, pod.uid)
        self._resident_bytes = self.resident_bytes()

    def cpu_seconds(self) -> float:
        """In user and kernel mode, of all its processes."""
        lines = dict(line.split() for line in (self._cgroup / "cpu.stat").read_text().splitlines())
        return int(lines["usage_usec"]) / 1e6

    def resident_bytes(self) -> int:
        """Of all its processes; what they share counts once each."""
        return sum(_resident_bytes(pid) for pid in run.processes(self._cgroup))

    def grown_bytes(self) -> int:
        """How much more memory is resident than at the start."""
        return self.resident_bytes() - self._resident_bytes


def _resident_bytes(pid: int) -> int:
    """0 of one that has ended: a probe's, say."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)


def measure(laboratory: Laboratory, contestant: Contestant, meter: Meter, cell: Cell, seconds: int) -> Sample:
    """One sample of a cell. Waits `seconds` and a little.

    Raises:
        Unmeasured: something failed on the way; the message holds what was printed.
    """
    try:
        if cell.load is Load.IDLE:
            return (idle(laboratory, contestant, meter, cell.parallel),)
        before = meter.cpu_seconds()
        counted, sample = _load(laboratory, contestant, cell, seconds)
        return (*sample, (meter.cpu_seconds() - before) / counted)
    except Unmeasured as error:
        raise Unmeasured(f"{contestant.name}, {cell.name}: {error}") from error


def _load(laboratory: Laboratory, contestant: Contestant, cell: Cell, seconds: int) -> tuple[float, Sample]:
    """How many requests there were, and the figures."""
    url = f"http://{contestant.host}{_PATHS[cell.load]}"
    fields = [word for header in contestant.headers for word in ("-H", header)]
    if cell.load in (Load.REQUESTS, Load.BODIES, Load.RULED):
        words = ["wrk", "-t1", f"-c{cell.parallel}", f"-d{seconds}s", "--latency", "-s", str(SCRIPT)]
        words += [*fields, url]
        rate, *times = parse_wrk(cell, run_in(laboratory, contestant.client, words, seconds))
        return rate * seconds, (rate * MIB,) if cell.load is Load.BODIES else (rate, *times)
    with TemporaryDirectory(prefix="ztunnel-bench-") as directory:
        log, message = Path(directory, "log"), Path(directory, "message")
        words = ["h2load", "-c1", f"-m{cell.parallel}", "-D", str(seconds), f"--log-file={log}"]
        words += [*fields, url]
        if cell.load is Load.CALLS:
            message.write_bytes(b"\0\0\0\0\x1b" + bytes(27))
            words += ["-d", str(message), "-H", "content-type: application/grpc", "-H", "te: trailers"]
        sample = parse_h2load(cell, run_in(laboratory, contestant.client, words, seconds), log.read_text())
        return sample[0] * seconds, sample


def idle(laboratory: Laboratory, contestant: Contestant, meter: Meter, count: int) -> float:
    """Bytes of the waypoint for each of `count` connections that have asked once, and stand."""
    command = [sys.executable, "-m", "bench.waypoint.stand", contestant.host, "80", str(count)]
    pipe = subprocess.PIPE
    with laboratory.popen(contestant.client, command, stdin=pipe, stdout=pipe, text=True) as client:
        try:
            assert client.stdout is not None
            if client.stdout.readline().strip() != str(count):
                raise Unmeasured("not all connections stand")
            return meter.grown_bytes() / count
        finally:
            client.kill()


def warm_up(laboratory: Laboratory, contestant: Contestant, meter: Meter) -> None:
    """Waits until calls are answered, and sees to it that they went through the waypoint.

    Raises:
        Unmeasured: no answer in time, or it came by another way.
    """
    before = meter.cpu_seconds()
    for load in (Load.REQUESTS, Load.STREAMS):
        first = Cell(Route.WAYPOINT, load, 1)
        _until_measured(partial(measure, laboratory, contestant, meter, first, 1))
    if meter.cpu_seconds() - before < 0.1:
        raise Unmeasured(f"{contestant.name}: the waypoint has done nothing")


def _until_measured(once: Callable[[], Sample]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS + GRACE_SECONDS
    while True:
        try:
            once()
            return
        except Unmeasured:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
