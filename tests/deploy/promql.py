"""Which metrics and labels dashboards and alerts ask for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.deploy.chart import ROOT

ALERTS = ROOT / "deploy" / "alerts" / "ztunnel.yaml"
DASHBOARDS = sorted((ROOT / "deploy" / "dashboards").glob("*.json"))
SCRAPERS = {"instance", "job", "le"}
"""Labels that a scrape does not show: Prometheus adds them, or they are a histogram's own."""

_WORDS = {"by", "without", "or", "and", "unless", "on", "ignoring", "group_left", "bool", "offset"}


def metrics(expression: str) -> dict[str, set[str]]:
    """The metrics of an expression, each with the labels that it is asked for: by its own matchers, and by
    what groups the expression."""
    plain = re.sub(r'"[^"]*"', '""', expression)
    grouped = {
        label.strip()
        for found in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", plain)
        for label in found.split(",")
    }
    rest = re.sub(r"\b(?:by|on)\s*\([^)]*\)", " ", plain)
    rest = re.sub(r"\[[^]]*\]", " ", rest)
    found: dict[str, set[str]] = {}
    for name, matchers in re.findall(
        r"\b([a-z_:][a-z0-9_:]*)\b(?!\s*\()\s*(\{[^}]*\})?", _without_matchers(rest)
    ):
        if name not in _WORDS:
            own = set(re.findall(r"(\w+)\s*(?:=|!)", _MATCHERS.get(matchers, "")))
            found.setdefault(name, set()).update(own | grouped)
    return {name: labels - SCRAPERS - {""} for name, labels in found.items()}


_MATCHERS: dict[str, str] = {}


def _without_matchers(text: str) -> str:
    """Matchers as a number in braces, so that their labels are no metrics."""

    def put(match: re.Match[str]) -> str:
        key = f"{{{len(_MATCHERS)}}}"
        _MATCHERS[key] = match[0]
        return key

    return re.sub(r"\{[^}]*\}", put, text)


def expressions() -> Iterator[tuple[str, str]]:
    """Where, and what, of all of ours."""
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for path in DASHBOARDS:
        yield from _asked(path)


def _asked(path: Path) -> Iterator[tuple[str, str]]:
    dashboard = json.loads(path.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"{path.stem}: {panel['title']}", target["expr"]


def family(name: str) -> str:
    """Without what a histogram adds."""
    return re.sub(r"_(bucket|sum|count)$", "", name)


def shown(scrape: str) -> dict[str, set[str]]:
    """The metrics of a scrape, each with the labels that any of its samples has."""
    found: dict[str, set[str]] = {}
    for line in scrape.splitlines():
        match = re.match(r"([a-z_:][a-z0-9_:]*)(?:\{(.*)\})? \S+$", line)
        if match:
            found.setdefault(match[1], set()).update(re.findall(r'(\w+)="(?:[^"\\]|\\.)*"', match[2] or ""))
    return found


def missing(scrapes: list[str]) -> list[str]:
    """What is asked for and in none of these scrapes."""
    there: dict[str, set[str]] = {}
    for scrape in scrapes:
        for name, labels in shown(scrape).items():
            there.setdefault(name, set()).update(labels)
    told = []
    for where, expression in expressions():
        for name, labels in metrics(expression).items():
            if name not in there:
                told.append(f"{where}: no metric {name}")
            elif labels - there[name]:
                told.append(f"{where}: {name} has no label {', '.join(sorted(labels - there[name]))}")
    return told
