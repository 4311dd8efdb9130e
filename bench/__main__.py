"""python -m bench: measures every contestant in every cell, in turns, and prints the table."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.cells import CELLS, OURS, Cell
from bench.contestants import Contestant, contestants
from bench.figures import Result, Unmeasured
from bench.measure import measure, warm_up
from bench.prepare import ground
from bench.table import render
from bench.turns import keep, take_turns
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.operate import Laboratory
from ztunnel.errors import Unsupported

ROUNDS = 3


def main() -> int:
    """Exit status 1, with the reason, if something could not be measured."""
    options = parse_options()
    chosen = [cell for cell in CELLS if options.only in f"{cell.route}: {cell.name}"]
    try:
        with ground(f"bench{os.getpid()}", start_nodes=options.ztunnel) as (laboratory, addresses):
            runners = [one for one in contestants(addresses) if options.ztunnel or one.name != OURS]
            results = compete(laboratory, runners, chosen, options)
    except (Unmeasured, LaboratoryFailed, Unsupported) as error:
        print(error, file=sys.stderr)
        return 1
    print(render(results))
    keep(results, options.json)
    print(f"\nmedian of {options.rounds}, {options.seconds} s each; `/ Envoy`: ztunnel's divided by Envoy's")
    print(f"every sample: {options.json}")
    return 0


def parse_options() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--seconds", type=int, default=3, help="how long a sample takes")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="samples of each contestant in each cell")
    parser.add_argument("--only", default="", metavar="TEXT", help="cells with TEXT in `route: cell`")
    parser.add_argument("--no-ztunnel", dest="ztunnel", action="store_false", help="only its rivals")
    parser.add_argument("--json", type=Path, default=Path(".build/bench.json"), metavar="FILE")
    return parser.parse_args()


def compete(
    laboratory: Laboratory, runners: Sequence[Contestant], cells: Sequence[Cell], options: argparse.Namespace
) -> list[Result]:
    """All samples, of the contestants in turns."""
    for route in dict.fromkeys(cell.route for cell in cells):
        for runner in runners:
            warm_up(laboratory, runner, route)
    return take_turns(
        runners,
        cells,
        options.rounds,
        lambda runner, cell: measure(laboratory, runner, cell, options.seconds),
    )


if __name__ == "__main__":
    sys.exit(main())
