"""Results as a table for people and as a document for machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bench.cells import OURS, Figure, Goal, goals
from bench.figures import Result

GAP = "  "


def render(results: Sequence[Result]) -> str:
    """One line a figure, one block a route; `/ Envoy` is our figure divided by Envoy's."""
    if not results:
        return ""
    contestants = list(results[0].samples)
    rivals = [name for name in contestants if name != OURS]
    ratios = [f"/ {rival}" for rival in rivals if OURS in contestants]
    lines = [["", "", *contestants, *ratios, "goal" if ratios else ""]]
    route = None
    for result in results:
        if result.cell.route != route:
            route = result.cell.route
            lines += [[], [str(route)]]
        lines += _lines(result, contestants, rivals if ratios else [])
    return _aligned(lines)


def _lines(result: Result, contestants: Sequence[str], rivals: Sequence[str]) -> Iterator[list[str]]:
    for place, figure in enumerate(result.cell.figures):
        medians = [_number(result.median(name, place), figure) for name in contestants]
        ratios = [f"{result.ratio(OURS, rival, place):.2f}" for rival in rivals]
        label = f"  {result.cell.name}" if place == 0 else ""
        wanted = [_said(result, place, goal) for goal in goals(result.cell, figure) if goal.rival in rivals]
        yield [label, f"{figure.name} {figure.unit}", *medians, *ratios, ", ".join(wanted)]


def _said(result: Result, place: int, goal: Goal) -> str:
    verdict = "met" if is_met(result, place, goal) else "MISSED"
    return f"{goal.bound:.1f} of {goal.rival}: {verdict}"


def is_met(result: Result, place: int, goal: Goal) -> bool:
    """Whether our median reaches the goal."""
    ratio = result.ratio(OURS, goal.rival, place)
    return ratio >= goal.bound if result.cell.figures[place].more_is_better else ratio <= goal.bound


def _number(value: float, figure: Figure) -> str:
    return f"{value * figure.scale:,.0f}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    columns = max(len(line) for line in lines)
    full = [[*line, *[""] * (columns - len(line))] for line in lines]
    widths = [max(len(line[column]) for line in full if len(line) > column) for column in range(columns)]
    aligned = [
        GAP.join(
            cell.ljust(width) if column in (0, 1, columns - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in full
    ]
    return "\n".join(line.rstrip() for line in aligned)


def document(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The same, complete, for JSON: rates per second, times in seconds, speeds in bytes/s."""
    return [
        {
            "route": result.cell.route,
            "cell": result.cell.name,
            "figure": figure.name,
            "median": {name: result.median(name, place) for name in result.samples},
            "samples": {name: [s[place] for s in samples] for name, samples in result.samples.items()},
            "ratio": {
                rival: result.ratio(OURS, rival, place)
                for rival in result.samples
                if OURS in result.samples and rival != OURS
            },
            "goals": {
                goal.rival: {"bound": goal.bound, "met": is_met(result, place, goal)}
                for goal in goals(result.cell, figure)
                if {OURS, goal.rival} <= result.samples.keys()
            },
        }
        for result in results
        for place, figure in enumerate(result.cell.figures)
    ]
