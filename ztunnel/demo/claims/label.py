"""The label comes off and on again: new calls follow it, and no connection is cut by it."""

from __future__ import annotations

from functools import partial

from ztunnel.demo import run
from ztunnel.demo.claims.claim import Claim, Findings
from ztunnel.demo.claims.crash import pod_processes
from ztunnel.demo.claims.direct import open_direct
from ztunnel.demo.claims.secrecy import count_marks, new_mark
from ztunnel.demo.claims.shop import FAR, NEAR, Shop
from ztunnel.demo.failure import LaboratoryFailed

_CONNECTIONS = (
    ("load", "orders-1"),
    ("load", "orders-2"),
    ("load", "client"),
    ("client", "orders-1"),
    ("client", "orders-2"),
)
_OUTSIDE = "ztunnel_connections_outside_mesh"


def _measure(shop: Shop, findings: Findings) -> None:
    processes = _processes(shop)
    open_direct(shop, "load", "kernel", shop.pod("orders-1"))
    try:
        _open_all(shop, "meshed")
        try:
            off = shop.set_mesh("none")
            plain = _marks_of_a_new_call(shop)
            findings.note(
                f"off after {off:.1f} s: a new call is {'plain' if plain else 'not plain'}", plain > 0
            )
            cut = _cut(shop, "meshed")
            _open_all(shop, "plain")
        finally:
            on = shop.set_mesh("ambient")
        readable = _marks_of_a_new_call(shop)
        text = f"on after {on:.1f} s: {readable} marks of a new call on the link"
        findings.note(text, readable == 0)
        _count_outside(shop, findings)
        cut += _cut(shop, "meshed") + _cut(shop, "plain")
        cut += [] if shop.caller("load").lives("kernel") else ["load - orders-1 by the kernel"]
        made = 2 * len(_CONNECTIONS) + 1
        text = f"{made - len(cut)} of {made} connections of either time, out of and into pods, live on"
        findings.note(f"{text}{', not: ' if cut else ''}{', '.join(cut)}", not cut)
    finally:
        for client in ("load", "client"):
            shop.caller(client).close()
    alive = processes <= _processes(shop)
    findings.note(f"{'no' if alive else 'a'} process of a node or pod was restarted", alive)


def _open_all(shop: Shop, era: str) -> None:
    for client, pod in _CONNECTIONS:
        opened = shop.caller(client).open(f"{era} {pod}", shop.pod(pod))
        if opened.error or not shop.caller(client).lives(f"{era} {pod}"):
            raise LaboratoryFailed(f"{client} cannot talk to {pod}: {opened.error}")


def _cut(shop: Shop, era: str) -> list[str]:
    return [
        f"{client} - {pod} from {era}"
        for client, pod in _CONNECTIONS
        if not shop.caller(client).lives(f"{era} {pod}")
    ]


def _marks_of_a_new_call(shop: Shop) -> int:
    mark, caller = new_mark(), shop.caller("load")
    with shop.laboratory.capture() as capture:
        opened = caller.open("new", shop.pod("orders-2"))
        sent = opened if opened.error else caller.exchange("new", mark, 30)
        caller.close("new")
        if sent.error:
            raise LaboratoryFailed(f"a new call to orders-2: {sent.error}")
        return count_marks(capture, mark)


def _count_outside(shop: Shop, findings: Findings) -> None:
    """Those from the time without the label, and load's to a pod outside; both ends within a node count."""
    expected = {"load": 4, "orders-1": 2, "orders-2": 2}
    counted = {pod: shop.reaches(partial(_outside, shop, pod), count) for pod, count in expected.items()}
    told = {pod.name: pod.outside for pod in shop.laboratory.survey().pods if pod.name in expected}
    shown = ", ".join(f"{pod} {count}" for pod, count in counted.items())
    findings.note(f"{_OUTSIDE}, and status: {shown}", counted == told == expected)


def _outside(shop: Shop, pod: str) -> int:
    return sum(int(shop.samples(node).total(_OUTSIDE, pod=pod)) for node in (NEAR, FAR))


def _processes(shop: Shop) -> set[int]:
    names = shop.laboratory.names
    proxies = {pid for node in shop.nodes for pid in run.processes(names.proxy_cgroup(node))}
    return proxies | pod_processes(shop)


CLAIM = Claim(
    9,
    "The label off and on again: new calls follow, nothing is cut or restarted",
    "a capture of new calls, connections of each time in both directions, the metric, the processes",
    _measure,
)
