"""The label comes off and on again: new calls follow it, and no connection is cut by it."""

from __future__ import annotations

from functools import partial

from ztunnel.demo import run
from ztunnel.demo.claims.claim import Claim, Findings
from ztunnel.demo.claims.crash import pod_processes
from ztunnel.demo.claims.direct import open_direct
from ztunnel.demo.claims.secrecy import count_marks, new_mark
from ztunnel.demo.claims.stage import FAR, NEAR, Stage
from ztunnel.demo.failure import LaboratoryFailed

_CONNECTIONS = (
    ("load", "orders-1"),
    ("load", "orders-2"),
    ("load", "client"),
    ("client", "orders-1"),
    ("client", "orders-2"),
)
_OUTSIDE = "ztunnel_connections_outside_mesh"


def _measure(stage: Stage, findings: Findings) -> None:
    processes = _processes(stage)
    open_direct(stage, "load", "kernel", stage.pod("orders-1"))
    try:
        _open_all(stage, "meshed")
        try:
            off = stage.set_mesh("none")
            plain = _marks_of_a_new_call(stage)
            findings.note(
                f"off after {off:.1f} s: a new call is {'plain' if plain else 'not plain'}", plain > 0
            )
            cut = _cut(stage, "meshed")
            _open_all(stage, "plain")
        finally:
            on = stage.set_mesh("ambient")
        readable = _marks_of_a_new_call(stage)
        text = f"on after {on:.1f} s: {readable} marks of a new call on the link"
        findings.note(text, readable == 0)
        _count_outside(stage, findings)
        cut += _cut(stage, "meshed") + _cut(stage, "plain")
        cut += [] if stage.caller("load").lives("kernel") else ["load - orders-1 by the kernel"]
        made = 2 * len(_CONNECTIONS) + 1
        text = f"{made - len(cut)} of {made} connections of either time, out of and into pods, live on"
        findings.note(f"{text}{', not: ' if cut else ''}{', '.join(cut)}", not cut)
    finally:
        for client in ("load", "client"):
            stage.caller(client).close()
    alive = processes <= _processes(stage)
    findings.note(f"{'no' if alive else 'a'} process of a node or pod was restarted", alive)


def _open_all(stage: Stage, era: str) -> None:
    for client, pod in _CONNECTIONS:
        opened = stage.caller(client).open(f"{era} {pod}", stage.pod(pod))
        if opened.error or not stage.caller(client).lives(f"{era} {pod}"):
            raise LaboratoryFailed(f"{client} cannot talk to {pod}: {opened.error}")


def _cut(stage: Stage, era: str) -> list[str]:
    return [
        f"{client} - {pod} from {era}"
        for client, pod in _CONNECTIONS
        if not stage.caller(client).lives(f"{era} {pod}")
    ]


def _marks_of_a_new_call(stage: Stage) -> int:
    mark, caller = new_mark(), stage.caller("load")
    with stage.laboratory.capture() as capture:
        opened = caller.open("new", stage.pod("orders-2"))
        sent = opened if opened.error else caller.exchange("new", mark, 30)
        caller.close("new")
        if sent.error:
            raise LaboratoryFailed(f"a new call to orders-2: {sent.error}")
        return count_marks(capture, mark)


def _count_outside(stage: Stage, findings: Findings) -> None:
    """Those from the time without the label; both ends of the one within a node count."""
    expected = {"load": 3, "orders-1": 2, "orders-2": 2}
    counted = {pod: stage.reaches(partial(_outside, stage, pod), count) for pod, count in expected.items()}
    told = {pod.name: pod.outside for pod in stage.laboratory.survey()[1] if pod.name in expected}
    shown = ", ".join(f"{pod} {count}" for pod, count in counted.items())
    findings.note(f"{_OUTSIDE}, and status: {shown}", counted == told == expected)


def _outside(stage: Stage, pod: str) -> int:
    return sum(int(stage.samples(node).total(_OUTSIDE, pod=pod)) for node in (NEAR, FAR))


def _processes(stage: Stage) -> set[int]:
    names = stage.laboratory.names
    proxies = {pid for node in stage.nodes for pid in run.processes(names.proxy_cgroup(node))}
    return proxies | pod_processes(stage)


CLAIM = Claim(
    9,
    "The label off and on again: new calls follow, nothing is cut or restarted",
    "a capture of new calls, connections of each time in both directions, the metric, the processes",
    _measure,
)
