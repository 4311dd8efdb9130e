"""python -m bench.waypoint: our waypoint and an Envoy in its place, in turns, and the table."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.cells import WAYPOINT_CELLS, Cell, Load
from bench.figures import Result, Sample, Unmeasured
from bench.table import render
from bench.turns import keep, take_turns
from bench.waypoint.ground import Contestant, ground
from bench.waypoint.loads import Meter, measure, warm_up
from bench.waypoint.rules import new_rules
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.operate import Laboratory
from ztunnel.errors import Unsupported

ROUNDS = 3


def main() -> int:
    """Exit status 1, with the reason, if something could not be measured."""
    options = parse_options()
    cells = [cell for cell in WAYPOINT_CELLS if options.only in cell.name]
    results: list[Result] = []
    try:
        for rules in (None, new_rules()):
            chosen = [cell for cell in cells if (cell.load is Load.RULED) == (rules is not None)]
            if chosen:
                with ground(f"benchwp{os.getpid()}", rules=rules) as (laboratory, contestants):
                    results += compete(laboratory, contestants, chosen, options)
    except (Unmeasured, LaboratoryFailed, Unsupported) as error:
        print(error, file=sys.stderr)
        return 1
    print(render(results))
    keep(results, options.json)
    print(f"\nmedian of {options.rounds}, {options.seconds} s each, between the same node proxies of ours;")
    print(f"`/ Envoy`: our waypoint's divided by Envoy's; every sample: {options.json}")
    return 0


def parse_options() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(prog="bench.waypoint", description=__doc__)
    parser.add_argument("--seconds", type=int, default=3, help="how long a sample takes")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="samples of each in each cell")
    parser.add_argument("--quick", action="store_true", help="one sample of a second each")
    parser.add_argument("--only", default="", metavar="TEXT", help="cells with TEXT in their name")
    parser.add_argument("--json", type=Path, default=Path(".build/bench-waypoint.json"), metavar="FILE")
    options = parser.parse_args()
    if options.quick:
        options.seconds = options.rounds = 1
    return options


def compete(
    laboratory: Laboratory,
    contestants: Sequence[Contestant],
    cells: Sequence[Cell],
    options: argparse.Namespace,
) -> list[Result]:
    """All samples, of the two in turns."""
    meters = {}
    for one in contestants:
        warm_up(laboratory, one, Meter(laboratory, one))
        meters[one.name] = Meter(laboratory, one)

    def sample(one: Contestant, cell: Cell) -> Sample:
        return measure(laboratory, one, meters[one.name], cell, options.seconds)

    return take_turns([(cell, contestants) for cell in cells], options.rounds, sample)


if __name__ == "__main__":
    sys.exit(main())
