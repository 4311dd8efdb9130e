"""Puts load on a contestant from inside its client's pod."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.cells import Cell, Load, Route
from bench.contestants import SINK_PORT, TUNNEL_PORT, Contestant, Way
from bench.figures import Sample, Unmeasured, parse_bulk, parse_wrk
from bench.pair import cpu_seconds
from ztunnel.demo.operate import Laboratory

SCRIPT = Path(__file__).with_name("load.lua")
PATIENCE_SECONDS = 20.0  # until a contestant that was just started answers
GRACE_SECONDS = 15.0  # for a load to end after its time
_PATHS = {Load.KIB: "1k", Load.KIB_16: "16k"}


def measure(laboratory: Laboratory, contestant: Contestant, cell: Cell, seconds: int) -> Sample:
    """One sample of a cell. Waits `seconds` and a little.

    Raises:
        Unmeasured: something failed on the way; the message holds what was printed.
    """
    way = contestant.ways[cell.route]
    try:
        if cell.load in (Load.BULK, Load.UPLOAD):
            return parse_bulk(run_in(laboratory, way.client, bulk_command(way, cell, seconds), seconds))
        proxies = contestant.proxies.pids() if contestant.proxies is not None else ((), ())
        before = [cpu_seconds(pids) for pids in proxies]
        sample = parse_wrk(cell, run_in(laboratory, way.client, wrk_command(way, cell, seconds), seconds))
        used = [cpu_seconds(pids) - at for pids, at in zip(proxies, before, strict=True)]
    except Unmeasured as error:
        raise Unmeasured(f"{contestant.name}, {cell.section}, {cell.name}: {error}") from error
    if len(cell.figures) == len(sample):
        return sample
    each = [one / (sample[0] * seconds) for one in used]
    return (*sample, sum(each), *each)


def wrk_command(way: Way, cell: Cell, seconds: int) -> list[str]:
    """Requests over connections that stay, or one on each, to all ports of the server in turn."""
    command = ["wrk", "-t1", f"-c{cell.parallel}", f"-d{seconds}s", "--latency", "-s", str(SCRIPT)]
    url = f"http://{way.host}:{way.ports[0]}/{_PATHS.get(cell.load, '')}"
    if cell.load is not Load.CONNECTIONS:
        return [*command, url]
    ports = [way.host, *map(str, way.ports)] if len(way.ports) > 1 else []
    return [*command, "-H", "Connection: close", url, *(["--", *ports] if ports else [])]


def bulk_command(way: Way, cell: Cell, seconds: int) -> list[str]:
    """Down from the server, or up to where it is thrown away."""
    direction, place = "down", (way.host, way.ports[0])
    if cell.load is Load.UPLOAD:
        direction, place = "up", way.sink or (way.host, SINK_PORT)
    words = [direction, place[0], str(place[1]), str(seconds), str(cell.parallel)]
    return [sys.executable, "-m", "bench.bulk", *words]


def warm_up(laboratory: Laboratory, contestant: Contestant, route: Route) -> None:
    """Waits until calls are answered, then checks that they go the way that the contestant stands for.

    Raises:
        Unmeasured: no answer in time, or it came by another way.
    """
    way = contestant.ways[route]
    until_answered(laboratory, contestant, route)
    if way.tunnelled is None:
        return
    is_tunnelled = bool(tunnels_at(laboratory, way.server))
    if is_tunnelled != way.tunnelled:
        there = "a tunnel" if is_tunnelled else "no tunnel"
        raise Unmeasured(f"{contestant.name}, {route}: there is {there} to the server")


def until_answered(laboratory: Laboratory, contestant: Contestant, route: Route) -> None:
    """Ask once, again and again, until that is answered. Raises Unmeasured: it is not, in some seconds."""
    way = contestant.ways[route]
    command = [sys.executable, "-m", "bench.waypoint.stand", way.host, str(way.ports[0]), "1"]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            run_in(laboratory, way.client, command, seconds=1)
            return
        except Unmeasured as error:
            if time.monotonic() > deadline:
                raise Unmeasured(f"{contestant.name}, {route}: {error}") from error
            time.sleep(0.05)


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
