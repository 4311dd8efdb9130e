"""What was checked of a machine or a cluster: each with its state, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby
from typing import Any


class State(IntEnum):
    """How it is, the worst last."""

    OK = 0
    WARN = 1
    FAIL = 2


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        category: what it belongs to: `kernel`, `privileges`, ...
        name: what was looked at.
        state: how it is.
        found: what was found.
        fix: what to do, "" where there is nothing to do.
    """

    category: str
    name: str
    state: State
    found: str
    fix: str = ""


def verdict(checks: Iterable[Check]) -> State:
    """The worst of them; OK where there is none."""
    return max((one.state for one in checks), default=State.OK)


def as_values(checks: Iterable[Check]) -> list[dict[str, Any]]:
    """Plain JSON values."""
    return [
        {
            "category": one.category,
            "name": one.name,
            "state": one.state.name.lower(),
            "found": one.found,
            "fix": one.fix,
        }
        for one in checks
    ]


def as_text(checks: Iterable[Check], marks: tuple[str, str, str] = ("[ok]", "[warn]", "[fail]")) -> str:
    """Lines by category, in the order in which they come; `marks` are those of the three states."""
    checks = list(checks)
    width = max((len(one.name) for one in checks), default=0)
    pad = max(map(len, marks))
    lines: list[str] = []
    for category, members in groupby(checks, key=lambda one: one.category):
        lines.append(category)
        for one in members:
            lines.append(f"  {marks[one.state]:<{pad}} {one.name:<{width}}  {one.found}".rstrip())
            if one.fix and one.state is not State.OK:
                lines.append(f"  {'':<{pad}} {'':<{width}}  -> {one.fix}")
    counts = [sum(one.state is state for one in checks) for state in State]
    return "\n".join([*lines, "", f"{counts[0]} ok, {counts[1]} warnings, {counts[2]} failures"])
