"""kill -9 of a node proxy: direct flows live on, what is new fails closed, and a restart restores all."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from ztunnel.demo import run
from ztunnel.demo.claims.claim import Claim, Findings
from ztunnel.demo.claims.direct import is_direct, open_direct
from ztunnel.demo.claims.secrecy import count_marks, new_mark
from ztunnel.demo.claims.shop import NEAR, Shop
from ztunnel.kernel import bpf

_LEASE_SECONDS = 2.0
_PAUSE_SECONDS = 0.05


def _measure(shop: Shop, findings: Findings) -> None:
    near = shop.pod("orders-1")
    local = open_direct(shop, "load", "direct", near)
    links, processes = link_ids(shop), pod_processes(shop)
    shop.laboratory.kill_node(NEAR)
    killed = time.monotonic()
    try:
        lives = shop.caller("load").lives("direct") and is_direct(shop, "load", local, "orders-1", near)
        findings.note(f"the direct flow {local} - {near} {'lives on' if lives else 'is cut'}", lives)
        _fail_closed(shop, findings, killed)
    finally:
        begun = time.monotonic()
        shop.laboratory.start_node(NEAR)
        ready = time.monotonic() - begun
    same, alive = link_ids(shop) == links, processes <= pod_processes(shop)
    text = f"ready {ready:.1f} s after its restart: {len(links)} link ids {'as before' if same else 'differ'}"
    findings.note(f"{text}, {'no' if alive else 'a'} process of a pod restarted", same and alive)
    errors = [shop.caller("load").call(shop.pod(pod)).error for pod in ("orders-1", "orders-2")]
    errors += [shop.caller("client").call(shop.pod("orders-1")).error]
    lives = shop.caller("load").lives("direct")
    shop.caller("load").close("direct")
    text = f"{errors.count('')} of {len(errors)} new calls are answered"
    text += f", the direct flow {'lives' if lives else 'is cut'}"
    findings.note(text, not any(errors) and lives)


def _fail_closed(shop: Shop, findings: Findings, killed: float) -> None:
    """What is new, in both directions, also where the kernel knows a verdict; nothing to read on the link."""
    caller, mark = shop.caller("load"), new_mark()
    with shop.laboratory.capture() as capture:
        refused = {}
        for name, (client, pod) in {
            "to another node": ("load", "orders-2"),
            "out of the mesh": ("load", "client"),
            "into the mesh": ("client", "orders-1"),
        }.items():
            opened = shop.caller(client).open(name, shop.pod(pod))
            sent = opened if opened.error else shop.caller(client).exchange(name, mark)
            refused[name] = sent.error
            shop.caller(client).close(name)
        marks = count_marks(capture, mark)
    # What is outside of the mesh is called without the proxy: there is nothing to fail closed.
    outside = refused.pop("out of the mesh")
    shown = ", ".join(f"{name} {error or 'ANSWERED'}" for name, error in refused.items())
    text = f"new: {shown}, out of the mesh {outside or 'answered'}; {marks} marks on the link"
    findings.note(text, all(refused.values()) and not outside and marks == 0)
    answered = 0.0
    while (begun := time.monotonic() - killed) < 2 * _LEASE_SECONDS:
        if error := caller.call(shop.pod("orders-1")).error:
            break
        answered = begun
        time.sleep(_PAUSE_SECONDS)
    text = (
        f"a cached verdict: answered until {answered:.1f} s after the kill, then {error or 'still answered'}"
    )
    findings.note(text, bool(error) and answered <= _LEASE_SECONDS)


def link_ids(shop: Shop) -> Mapping[str, int]:
    """The ids of the links that the near node has pinned, by the path of the pin."""
    pins = shop.laboratory.names.pins(NEAR)
    return {
        str(path.relative_to(pins)): _link_id(path)
        for path in (*_entries(pins / "links"), *_entries(pins / "pods"))
    }


def pod_processes(shop: Shop) -> set[int]:
    """The processes of all pods, by their numbers."""
    names, pods = shop.laboratory.names, shop.cluster.pods
    return {pid for pod in pods for pid in run.processes(names.pod_cgroup(pod.node.name, pod.uid))}


def _entries(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


def _link_id(pin: Path) -> int:
    fd = bpf.open_pinned(pin)
    try:
        return bpf.link_info(fd).id
    finally:
        bpf.close(fd)


CLAIM = Claim(
    7,
    "kill -9 of a node proxy: flows live on, new ones fail closed, all recovers",
    "kill -9 with connections open; calls and a capture while it is down; link ids and pids before and after",
    _measure,
)
