"""An explanation as lines for a terminal, and as plain JSON values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ztunnel.authz.explanation import Tried
from ztunnel.explain.path import Explanation, Path, Way


def as_values(explanation: Explanation) -> dict[str, Any]:
    """Plain JSON values: the fields, and `allowed` and `verdict`."""
    values = asdict(explanation)
    return {**values, "allowed": explanation.allowed, "verdict": explanation.verdict}


def as_text(explanation: Explanation) -> str:
    """Some lines; the last says what becomes of the call."""
    lines = [f"from  {explanation.source}", f"to    {explanation.destination}", ""]
    for path in explanation.paths:
        lines += _path(path)
    if explanation.more:
        lines.append(f"and {explanation.more} more endpoints")
    return "\n".join([*lines, "", _sentence(explanation.verdict)])


def _path(path: Path) -> list[str]:
    where = f" on {path.node}" if path.node else ""
    who = f"{path.to} at {path.endpoint}{where}" if path.to else path.endpoint
    way = "" if path.way is Way.NOWHERE else f", {_WAYS[path.way]}"
    lines = [f"{'allowed' if path.allowed else 'refused'}  {who}{way}", f"         {path.reason}"]
    return [*lines, *_policies(path.tried), *(f"  {line}" for one in path.onward for line in _path(one))]


_WAYS = {
    Way.HBONE: "over HBONE (mutual TLS)",
    Way.WAYPOINT: "over HBONE through the waypoint",
    Way.DIRECT: "directly (both pods are on one node)",
    Way.PLAINTEXT: "in plaintext",
}


def _policies(tried: tuple[Tried, ...]) -> list[str]:
    width = max((len(one.policy) for one in tried), default=0)
    return [
        f"         {_action(one):<7} {one.policy:<{width}}  {_outcome(one)}: {one.why}".rstrip()
        for one in tried
    ]


def _action(one: Tried) -> str:
    return one.action or "?"


def _outcome(one: Tried) -> str:
    text = "matches" if one.matches else "does not match"
    if one.dry_run:
        return f"dry run, {text}"
    return f"{text}, and decides" if one.decides else text


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
