"""Results as a picture: a group of bars a row, each as long as its contestant is good beside a rival.

    python -m bench.picture RESULTS.json PICTURE.svg

A bar of length 1 is what the row is held against (no mesh, or the better of the other pairs); longer is
better, also where less is: then the ratio is turned over. A tick marks what ours has to reach.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from bench.cells import BARE, OURS

_COLOURS = ("#4c78a8", "#b0b7c3", "#f2a65a", "#72b7b2", "#b279a2", "#9d755d")
_LABELS, _SCALE, _BAR, _GAP, _TOP, _RIGHT = 330, 170.0, 11, 12, 64, 150
_LONGEST = 3.0
"""What is better than that is cut off, and its number says so."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A contestant's; `times` as good as what the row is held against."""

    contestant: str
    times: float


@dataclass(frozen=True, slots=True)
class Group:
    """A row. `must` and `goal` are where ours has to reach, as a length; None where it is only shown."""

    section: str
    label: str
    bars: tuple[Bar, ...]
    must: float | None
    goal: float | None


def groups(entries: Sequence[Mapping[str, Any]]) -> list[Group]:
    """Of the results in a JSON file, those in which ours is held against a rival."""
    found = [_group(entry) for entry in entries if entry.get("bound", {}).get("rival")]
    return [group for group in found if group is not None]


def _group(entry: Mapping[str, Any]) -> Group | None:
    bound, medians, more = entry["bound"], entry["median"], entry["more_is_better"]
    base: float = medians.get(bound["rival"]) or 0.0
    if not base or bound["reached"] is None:
        return None

    def times(value: float) -> float:
        return value / base if more else base / value

    shown = [name for name in medians if medians[name] and (name != BARE or bound["rival"] == BARE)]
    bars = tuple(Bar(name, times(medians[name])) for name in shown)
    must, goal = (None if bound[key] is None else times(bound[key] * base) for key in ("must", "goal"))
    return Group(entry["route"], f"{entry['cell']}: {entry['figure']}", bars, must, goal)


def render(title: str, shown: Sequence[Group]) -> str:
    """The picture, as SVG of its own (no scripts, no fonts but the viewer's)."""
    names = list(dict.fromkeys(bar.contestant for group in shown for bar in group.bars))
    names.sort(key=lambda name: name != OURS)
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(names)}
    body: list[str] = []
    y, section = float(_TOP), ""
    for group in shown:
        if group.section != section:
            section = group.section
            y += _GAP
            body.append(_text(10, y + 4, section, font_weight="bold"))
            y += _GAP + 2
        height = _BAR * len(group.bars)
        body += _bars(group, y, colours)
        y += height + _GAP
    width = _LABELS + _SCALE * _LONGEST + _RIGHT
    x = _LABELS + _SCALE
    axis = f'<line x1="{x:g}" y1="{_TOP}" x2="{x:g}" y2="{y:g}" stroke="#555" stroke-dasharray="2 3"/>'
    head = [_text(10, 20, title, font_size=14, font_weight="bold"), *_legend(colours), axis]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {y + 10:g}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width:g}" height="{y + 10:g}" fill="white"/>',
        *head,
        *body,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _bars(group: Group, top: float, colours: Mapping[str, str]) -> Iterator[str]:
    height = _BAR * len(group.bars)
    yield _text(_LABELS - 8, top + height / 2 + 4, group.label, text_anchor="end")
    for number, bar in enumerate(group.bars):
        length, y = _SCALE * min(bar.times, _LONGEST), top + number * _BAR
        yield (
            f'<rect x="{_LABELS}" y="{y:g}" width="{length:.1f}" height="{_BAR - 2}" '
            f'fill="{colours[bar.contestant]}"/>'
        )
        yield _text(_LABELS + length + 4, y + _BAR - 3, f"{bar.times:.2f}", font_size=9)
    for at, dash in ((group.must, ""), (group.goal, ' stroke-dasharray="2 2"')):
        if at is not None:
            x = _LABELS + _SCALE * min(at, _LONGEST)
            ends = f'x1="{x:.1f}" y1="{top - 2:g}" x2="{x:.1f}" y2="{top + height:g}"'
            yield f'<line {ends} stroke="#c00"{dash}/>'


def _legend(colours: Mapping[str, str]) -> Iterator[str]:
    x = 10.0
    for name, colour in colours.items():
        yield f'<rect x="{x:g}" y="32" width="10" height="10" fill="{colour}"/>'
        yield _text(x + 14, 41, name)
        x += 30 + 7 * len(name)
    yield _text(x, 41, "1 = what the row is held against; longer is better; red: must, dashed: goal")


def _text(x: float, y: float, text: str, **more: object) -> str:
    """`more` are attributes, such as font_size."""
    attributes = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())
    return f'<text x="{x:g}" y="{y:g}"{attributes}>{escape(text)}</text>'


def title_of(document: Mapping[str, Any]) -> str:
    """When, on which machine, by which command."""
    on = f"{document['cpus']} x {document['processor'] or 'CPU'}, Linux {document['kernel']}"
    return f"{document['date'][:10]}, {on}: {document.get('command', 'make bench')}"


def main(words: Sequence[str]) -> None:
    """The command."""
    document = json.loads(Path(words[0]).read_text())
    Path(words[1]).write_text(render(title_of(document), groups(document["results"])))


if __name__ == "__main__":
    main(sys.argv[1:])
