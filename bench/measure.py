"""Puts load on a contestant from inside its client's pod."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.cells import Cell, Load, Route
from bench.contestants import TUNNEL_PORT, Contestant
from bench.figures import Sample, Unmeasured, parse_bulk, parse_wrk
from ztunnel.demo.operate import Laboratory

SCRIPT = Path(__file__).with_name("load.lua")
PATIENCE_SECONDS = 20.0  # until a contestant that was just started answers
GRACE_SECONDS = 15.0  # for a load to end after its time


def measure(laboratory: Laboratory, contestant: Contestant, cell: Cell, seconds: int) -> Sample:
    """One sample of a cell. Waits `seconds` and a little.

    Raises:
        Unmeasured: something failed on the way; the message holds what was printed.
    """
    host, port = contestant.targets[cell.route]
    try:
        if cell.load is Load.BULK:
            command = [sys.executable, "-m", "bench.download", host, str(port), str(seconds)]
            return parse_bulk(run_in(laboratory, contestant.client, command, seconds))
        command = ["wrk", "-t1", f"-c{cell.parallel}", f"-d{seconds}s", "--latency", "-s", str(SCRIPT)]
        if cell.load is Load.CONNECTIONS:
            command += ["-H", "Connection: close"]
        command += [f"http://{host}:{port}/"]
        return parse_wrk(cell, run_in(laboratory, contestant.client, command, seconds))
    except Unmeasured as error:
        raise Unmeasured(f"{contestant.name}, {cell.route}, {cell.name}: {error}") from error


def warm_up(laboratory: Laboratory, contestant: Contestant, route: Route) -> None:
    """Waits until calls are answered, then checks that they go the way that the contestant stands for.

    Raises:
        Unmeasured: no answer in time, or it came by another way.
    """
    first = Cell(route, Load.REQUESTS, 1)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            measure(laboratory, contestant, first, seconds=1)
            break
        except Unmeasured:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    is_tunnelled = bool(tunnels_at(laboratory, contestant.server(route)))
    if is_tunnelled != (route in contestant.tunnelled):
        way = "a tunnel" if is_tunnelled else "no tunnel"
        raise Unmeasured(f"{contestant.name}, {route}: there is {way} to the server")


def tunnels_at(laboratory: Laboratory, server: str) -> str:
    """The established connections to the tunnel port of a server's pod, as `ss` prints them."""
    command = ["ss", "-Htn", "state", "established", f"( sport = :{TUNNEL_PORT} )"]
    return run_in(laboratory, server, command, seconds=0)


def run_in(laboratory: Laboratory, pod: str, command: Sequence[str], seconds: float) -> str:
    """What a command in a pod prints. Its time is what it needs, `seconds`, and some to end."""
    try:
        ended = laboratory.exec(pod, command, timeout=seconds + GRACE_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise Unmeasured(f"{command[0]} did not end") from error
    if ended.returncode:
        raise Unmeasured(f"{command[0]}: {(ended.stdout + ended.stderr).strip()}")
    return ended.stdout
