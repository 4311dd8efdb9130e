"""python -m bench: measures every contestant in every row, in turns, and prints the table."""

from __future__ import annotations

import argparse
import os
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.bounds import below
from bench.cells import (
    CELLS,
    ENGINE_CELLS,
    LIFE_CELLS,
    OURS,
    SUSTAINED_CELLS,
    Cell,
    idle_cells,
    large_cells,
    the_other_way,
)
from bench.contestants import Contestant
from bench.engines import measure_engines
from bench.figures import Result, Sample, Unmeasured
from bench.idle import measure_idle
from bench.large.measure import measure_large
from bench.measure import measure, warm_up
from bench.others import watch_beside
from bench.peers import Peer, read_peer
from bench.plan import QUICK, WHOLE, Plan, chosen
from bench.ports import measure_sustained
from bench.prepare import Ground, Wanted, ground
from bench.starts import measure_starts
from bench.table import render
from bench.turns import keep, take_turns
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.errors import ConfigError, Unsupported

Cells = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """What the command line asks for."""

    plan: Plan
    only: str
    ztunnel: bool
    access_log: bool
    peers: tuple[Peer, ...]

    def chosen(self, cells: Sequence[Cell]) -> Cells:
        """Those of the cells that are to be measured."""
        return chosen(cells, self.only)


def main() -> int:
    """Exit status 1, with the reason, if something could not be measured; with --check also where a row does
    not reach its must."""
    options = parse_options()
    plan = (QUICK if options.quick else WHOLE).held_by(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    plan = replace(plan, seconds=options.seconds or plan.seconds, rounds=options.rounds or plan.rounds)
    try:
        peers = tuple(read_peer(given, number) for number, given in enumerate(options.peer))
        run = Run(plan, options.only, options.ztunnel, options.access_log == "on", peers)
        results = grouped([result for section in sections(run) for result in section])
    except (ConfigError, Unsupported) as error:
        print(error, file=sys.stderr)
        return 1
    print(render(results))
    command = options.command or " ".join(["python -m bench", *sys.argv[1:]])
    keep(results, options.json, command=command, seconds=plan.seconds, rounds=plan.rounds)
    print(f"\nmedian of {plan.rounds} samples (docs/benchmark.md); `/ Envoy`: ztunnel's divided by Envoy's")
    print(f"every sample: {options.json}")
    missed = below(results)
    for line in missed:
        print(f"below: {line}", file=sys.stderr)
    return 1 if any(each.failure for each in results) or (options.check and missed) else 0


def parse_options() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one sample of a second, and smaller worlds")
    parser.add_argument("--check", action="store_true", help="exit status 1 where a row is below its must")
    parser.add_argument("--seconds", type=int, help="how long a sample takes")
    parser.add_argument("--rounds", type=int, help="samples of each contestant in each row")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows with TEXT in `section: row`")
    parser.add_argument("--no-ztunnel", dest="ztunnel", action="store_false", help="only its rivals")
    parser.add_argument("--access-log", choices=("on", "off"), default="on", help="of all; main rows: both")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=FILE", help="docs/benchmark.md")
    parser.add_argument("--json", type=Path, default=Path(".build/bench.json"), metavar="FILE")
    parser.add_argument("--command", default="", help="what to name in the file as the command")
    return parser.parse_args()


def sections(run: Run) -> Iterator[list[Result]]:
    """All of it, part by part. A part that cannot be measured costs only itself."""
    name = f"bench{os.getpid()}"
    loads, idle = (
        run.chosen(CELLS if run.access_log else _unlogged(CELLS)),
        run.chosen(idle_cells(run.plan.most_idle)),
    )
    starts = run.chosen(LIFE_CELLS) if run.ztunnel else ()
    wanted = Wanted(run.ztunnel, run.access_log, run.peers)

    def first() -> Iterator[Result]:
        with ground(name, wanted) as made:
            yield from compete(made, loads, run.plan)
            if idle:
                yield from measure_idle(made.laboratory, made.contestants, idle, run.plan.idle_rounds)
            yield from measure_starts(made.laboratory, starts, run.plan.start_rounds)

    yield attempt((*loads, *idle, *starts), first)
    others = run.chosen(the_other_way(CELLS, not run.access_log))

    def second() -> Iterator[Result]:
        with ground(name, replace(wanted, access_log=not run.access_log)) as made:
            yield from compete(made, others, run.plan)

    yield attempt(others, second)
    if run.ztunnel:
        sustained = run.chosen(SUSTAINED_CELLS)
        seconds = run.plan.sustained_seconds
        yield attempt(sustained, lambda: [measure_sustained(cell, seconds) for cell in sustained])
        engines = run.chosen(ENGINE_CELLS)
        yield attempt(engines, lambda: [measure_engines(cell, run.plan) for cell in engines])
        large = run.chosen(large_cells(run.plan.sizes.workloads, run.plan.sizes.flows))
        yield attempt(large, lambda: measure_large(name, large, run.plan))


def grouped(results: Sequence[Result]) -> list[Result]:
    """Those of one section together."""
    order = list(dict.fromkeys(result.cell.section for result in results))
    return sorted(results, key=lambda result: order.index(result.cell.section))


def _unlogged(cells: Cells) -> Cells:
    return tuple(replace(cell, logged=False) for cell in cells)


def attempt(cells: Cells, measured: Callable[[], Iterator[Result] | list[Result]]) -> list[Result]:
    """What came of a part; of cells that it did not come to, why not."""
    results: list[Result] = []
    if not cells:
        return results
    try:
        for result in measured():
            results.append(result)  # noqa: PERF402 - what was measured before an error counts
    except (Unmeasured, LaboratoryFailed, RuntimeError) as error:
        print(error, file=sys.stderr)
        there = {result.cell for result in results}
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        results += [Result(cell, {OURS: []}, failure=reason) for cell in cells if cell not in there]
    return results


def compete(made: Ground, cells: Cells, plan: Plan) -> list[Result]:
    """All samples of loads, of the contestants in turns."""
    entries = [(cell, [one for one in made.contestants if one.competes(cell)]) for cell in cells]
    for route in dict.fromkeys(cell.route for cell in cells):
        for one in made.contestants:
            if route in one.ways:
                warm_up(made.laboratory, one, route)

    def sample(one: Contestant, cell: Cell) -> Sample:
        return measure(made.laboratory, one, cell, plan.seconds_of(cell))

    watch = watch_beside(made.laboratory.names.cgroup, plan.patience_seconds)
    return take_turns(entries, plan.rounds, sample, watch, plan.repeats)


if __name__ == "__main__":
    sys.exit(main())
