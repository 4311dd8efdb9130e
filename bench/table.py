"""Results as a table for people and as a document for machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bench.bounds import Judged, Verdict, judge
from bench.cells import OURS, Figure
from bench.figures import Result

GAP = "  "


def render(results: Sequence[Result]) -> str:
    """One line a figure, one block a route; `/ Envoy` is our figure divided by Envoy's. Medians, with half of
    the range of the samples; what ours has to reach stands beside what it is held against."""
    if not results:
        return ""
    contestants = list(dict.fromkeys(name for result in results for name in result.samples))
    rivals = [name for name in contestants if name != OURS and OURS in contestants]
    judges = any(judge(each, place) for each in results for place, _ in enumerate(each.cell.figures))
    lines = [
        ["", "", *contestants, *(f"/ {each}" for each in rivals), "must, goal: reached" if judges else ""]
    ]
    section = None
    for result in results:
        if result.cell.section != section:
            section = result.cell.section
            lines += [[], [section]]
        lines += _lines(result, contestants, rivals)
    return "\n".join([_aligned(lines), *_notes(results)])


def _lines(result: Result, contestants: Sequence[str], rivals: Sequence[str]) -> Iterator[list[str]]:
    label = f"  {result.cell.name}" + ("*" if result.disturbed else "")
    if result.failure:
        yield [label, "not measured"]
        return
    for place, figure in enumerate(result.cell.figures):
        medians = [_median(result, name, place) for name in contestants]
        ratios = [_ratio(result, rival, place) for rival in rivals]
        judged = judge(result, place)
        yield [label, f"{figure.name} {figure.unit}", *medians, *ratios, _said(judged) if judged else ""]
        label = ""


def _median(result: Result, name: str, place: int) -> str:
    if not result.samples.get(name):
        return ""
    number = _number(result.median(name, place), result.cell.figures[place])
    if len(result.samples[name]) == 1 or number == "-":
        return number
    return f"{number} ±{result.spread(name, place):.0%}"


def _ratio(result: Result, rival: str, place: int) -> str:
    if not {OURS, rival} <= result.samples.keys():
        return ""
    ratio = result.ratio(OURS, rival, place)
    return "" if ratio is None else f"{ratio:.2f}"


def _said(judged: Judged) -> str:
    bound = judged.bound
    wanted = f"{bound.must:g}" + ("" if bound.goal is None else f", {bound.goal:g}")
    of = f" of {judged.bound.against}" if judged.rival else ""
    if judged.reached is None:
        return f"{wanted}{of}: {judged.verdict}"
    reached = {Verdict.GOAL: "goal", Verdict.MUST: "must"}.get(judged.verdict, str(judged.verdict))
    return f"{wanted}{of}: {judged.reached:.2f} {reached}"


def _number(value: float, figure: Figure) -> str:
    scaled = value * figure.scale
    if not scaled:
        return "-"
    return f"{scaled:,.0f}" if abs(scaled) >= 100 else f"{scaled:.3g}"


def _notes(results: Sequence[Result]) -> Iterator[str]:
    """What is to know of how it was measured."""
    if repeated := sum(each.repeated for each in results):
        yield f"\n{repeated} rounds were disturbed by others on this machine, and repeated"
    if any(each.disturbed for each in results):
        yield "* others had this machine in a round that counts"
    for each in results:
        if each.failure:
            yield f"not measured: {each.cell.section}, {each.cell.name}: {each.failure}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    columns = max(len(line) for line in lines)
    full = [[*line, *[""] * (columns - len(line))] for line in lines]
    # What stands alone in its line is a title, or a remark, and may be wider than its column.
    widths = [
        max((len(line[n]) for line in lines if len(line) > max(n, 2)), default=0) for n in range(columns)
    ]
    aligned = [
        GAP.join(
            cell.ljust(width) if column in (0, 1, columns - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in full
    ]
    return "\n".join(line.rstrip() for line in aligned)


def document(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The same, complete, for JSON: rates per second, times in seconds, speeds in bytes/s, sizes in bytes."""
    return [_entry(result, place) for result in results for place, _ in enumerate(result.cell.figures)]


def _entry(result: Result, place: int) -> dict[str, Any]:
    figure, judged = result.cell.figures[place], judge(result, place)
    entry: dict[str, Any] = {
        "route": result.cell.section,
        "cell": result.cell.name,
        "figure": figure.name,
        "unit": figure.unit,
        "scale": figure.scale,
        "more_is_better": figure.more_is_better,
        "median": {name: result.median(name, place) for name in result.samples},
        "samples": {name: [s[place] for s in samples] for name, samples in result.samples.items()},
        "ratio": {
            rival: result.ratio(OURS, rival, place)
            for rival in result.samples
            if OURS in result.samples and rival != OURS
        },
        "rounds": {"repeated": result.repeated, "disturbed": result.disturbed},
    }
    if result.failure:
        entry["failure"] = result.failure
    if judged is not None:
        entry["bound"] = {
            "against": str(judged.bound.against),
            "rival": judged.rival,
            "must": judged.bound.must,
            "goal": judged.bound.goal,
            "reached": judged.reached,
            "verdict": str(judged.verdict),
        }
    return entry
