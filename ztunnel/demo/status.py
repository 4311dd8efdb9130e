"""What a survey found, as text for a terminal and as JSON for a program."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from ztunnel.demo.survey import PodStatus, Survey


def as_json(survey: Survey) -> str:
    """One object: nodes, pods, faults, plain; the names of fields are those of `survey`."""
    found = {
        "nodes": [asdict(node) for node in survey.nodes],
        "pods": [asdict(pod) for pod in survey.pods],
        "faults": [str(fault) for fault in survey.faults],
        "plain": survey.plain,
    }
    return json.dumps(found, default=str, indent=2)


def as_text(survey: Survey) -> str:
    """Tables of nodes and pods, then what is not as it should be, if anything."""
    nodes = [("NODE", "ADDRESSES", "PROXY")]
    nodes += [(node.name, _words(node.addresses), node.proxy) for node in survey.nodes]
    pods = [("NAMESPACE", "POD", "NODE", "ADDRESSES", "MESH", "STATE")]
    pods += [
        (pod.namespace, pod.name, pod.node, _words(pod.addresses), _mesh(pod), _state(pod))
        for pod in survey.pods
    ]
    parts = [_columns(nodes), _columns(pods), *_list("Details:", _details(survey))]
    if not survey.plain:
        waiting = [pod for pod in survey.pods if pod.pending]
        parts += _list("Not enrolled:", (f"{pod.namespace}/{pod.name}: {pod.pending}" for pod in waiting))
    unready = [pod for pod in survey.pods if pod.unready]
    parts += _list("Not ready:", (f"{pod.namespace}/{pod.name}: {pod.unready}" for pod in unready))
    parts += _list("Faults of stored objects, which are left out:", map(str, survey.faults))
    return "\n\n".join(parts)


def _details(survey: Survey) -> Iterator[str]:
    for node in survey.nodes:
        yield from (f"{node.name}: {line}" for line in node.details)


def _mesh(pod: PodStatus) -> str:
    mesh = "yes" if pod.enrolled else ("wanted" if pod.wanted else "no")
    if pod.outside:
        mesh += f", but {pod.outside} older connection{'s' if pod.outside > 1 else ''}"
    return mesh


def _state(pod: PodStatus) -> str:
    if not pod.running:
        return "ended"
    return "not ready" if pod.unready else "running"


def _list(title: str, lines: Iterator[str] | map[str]) -> list[str]:
    found = [_printable(line) for line in lines]
    return ["\n  ".join([title, *found])] if found else []


def _words(parts: Sequence[object]) -> str:
    return " ".join(map(str, parts))


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
    return "\n".join(map(_printable, lines))


def _printable(line: str) -> str:
    """What a proxy said is shown without control characters."""
    return "".join(mark for mark in line if mark.isprintable())
