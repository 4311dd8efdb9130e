"""What proxies weigh that have just been started, and with connections that stand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from bench.cells import Cell, Route
from bench.contestants import Contestant
from bench.figures import Result, Sample, Unmeasured
from bench.measure import until_answered
from bench.pair import resident_bytes
from ztunnel.demo.operate import Laboratory


@contextmanager
def standing(laboratory: Laboratory, client: str, place: tuple[str, int], count: int) -> Iterator[None]:
    """So many connections, each of which has been answered once. Raises Unmeasured."""
    command = [sys.executable, "-m", "bench.waypoint.stand", place[0], str(place[1]), str(count)]
    pipe = subprocess.PIPE
    with laboratory.popen(client, command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            if process.stdout.readline().strip() != str(count):
                raise Unmeasured(f"{count} connections do not stand: {last_line(process.stderr.read())}")
            yield
        finally:
            process.kill()


def last_line(printed: str) -> str:
    """What an interpreter says of the error that ended it."""
    return (printed.strip().splitlines() or ["nothing was printed"])[-1]


def measure_idle(
    laboratory: Laboratory, contestants: Sequence[Contestant], cells: Sequence[Cell], rounds: int
) -> list[Result]:
    """Resident memory of both proxies of each contestant; all proxies are others afterwards.

    Connections of a larger number come to those of a smaller one: cells are in the order of their numbers.
    """
    chosen = [one for one in contestants if one.proxies is not None]
    samples: dict[Cell, dict[str, list[Sample]]] = {cell: {one.name: [] for one in chosen} for cell in cells}
    try:
        for number in range(rounds):
            first = number % len(chosen)
            for one in (*chosen[first:], *chosen[:first]):
                print(f"{Route.PROXIES}: idle connections, {one.name} ...", file=sys.stderr)
                for cell, sample in zip(cells, _weigh(laboratory, one, cells, number), strict=True):
                    samples[cell][one.name].append(sample)
    except Unmeasured as error:
        failure = f"{one.name}: {error}"
        return [Result(cell, {one.name: [] for one in chosen}, failure=failure) for cell in cells]
    return [Result(cell, samples[cell]) for cell in cells]


def _weigh(laboratory: Laboratory, one: Contestant, cells: Sequence[Cell], number: int) -> Iterator[Sample]:
    """In each round towards another port: those of the client that stood before rest for a minute."""
    assert one.proxies is not None
    one.proxies.restart()
    until_answered(laboratory, one, Route.TWO_NODES)
    way, stand = one.ways[Route.TWO_NODES], 0
    place = way.host, way.ports[number % len(way.ports)]
    with ExitStack() as stack:
        for cell in cells:
            if cell.parallel > stand:
                more = cell.parallel - stand
                stack.enter_context(standing(laboratory, way.client, place, more))
                stand = cell.parallel
            client, server = one.proxies.pids()
            yield (float(resident_bytes([*client, *server])),)
