"""Waits, never for ever: for node proxies that become ready, for pods that listen, for processes that end."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ztunnel.demo import run
from ztunnel.demo.call import get
from ztunnel.demo.cluster import Node, Pod
from ztunnel.demo.echo import LISTENING
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.names import Names
from ztunnel.demo.survey import proxy_state
from ztunnel.run.handover import socket_of
from ztunnel.run.successor import serving

_READY_SECONDS = (
    30.0  # a first start compiles the eBPF programs: up to 3.5 s, on a busy machine several times that
)
_LISTENING_SECONDS = 5.0
_GONE_SECONDS = 10.0
KNOWN_SECONDS = 3.0
"""A change of manifests is in force after half a second, on a busy machine later."""

_ADMIN_PORT = 15000
DRAIN_SECONDS = 60.0
"""For a node proxy that was told to end: it drains, and may be told to take its time."""

_PAUSE_SECONDS = 0.02
_TAIL_LINES = 15


def until_ready(names: Names, started: Sequence[tuple[Node, subprocess.Popen[bytes]]]) -> None:
    """Return when every node's proxy answers that it is ready.

    Raises:
        LaboratoryFailed: one ended, or was not ready in time; with its reason and the end of its log.
    """
    deadline = time.monotonic() + _READY_SECONDS
    for node, process in started:
        log = names.node_directory(node.name) / "log"
        while (state := proxy_state(names, node)) != "ready":
            if process.poll() is not None:
                raise LaboratoryFailed(
                    f"the proxy of {node.name} ended with {process.returncode}; {_tail(log)}"
                )
            if time.monotonic() > deadline:
                raise LaboratoryFailed(f"the proxy of {node.name} is not ready: {state}; {_tail(log)}")
            time.sleep(_PAUSE_SECONDS)


def until_taken_over(names: Names, node: Node, process: subprocess.Popen[bytes]) -> None:
    """Return when this process serves a node in the place of the one before. Raises LaboratoryFailed, as
    `until_ready`."""
    deadline = time.monotonic() + _READY_SECONDS
    log = names.node_directory(node.name) / "log"
    place = socket_of(names.node_directory(node.name), names.pins(node.name))
    while serving(place) != process.pid:
        if process.poll() is not None:
            raise LaboratoryFailed(
                f"the new proxy of {node.name} ended with {process.returncode}; {_tail(log)}"
            )
        if time.monotonic() > deadline:
            raise LaboratoryFailed(f"the new proxy of {node.name} does not take over; {_tail(log)}")
        time.sleep(_PAUSE_SECONDS)


def until_ended(cgroup: Path, pids: Sequence[int], seconds: float = DRAIN_SECONDS) -> None:
    """Return when none of these processes is left in a cgroup. Raises LaboratoryFailed."""
    deadline = time.monotonic() + seconds
    while left := set(pids).intersection(run.processes(cgroup)):
        if time.monotonic() > deadline:
            raise LaboratoryFailed(f"processes {sorted(left)} of {cgroup} do not end")
        time.sleep(_PAUSE_SECONDS)


def until_listening(names: Names, started: Sequence[run.Started]) -> None:
    """Return when every echo server says that it listens.

    Raises:
        LaboratoryFailed: one ended, or did not listen in time; with the end of its log.
    """
    deadline = time.monotonic() + _LISTENING_SECONDS
    for each in started:
        log = names.pod_log(each.pod.namespace, each.pod.name)
        while each.stands_in and LISTENING not in log.read_text(errors="replace"):
            if each.process.poll() is not None or time.monotonic() > deadline:
                raise LaboratoryFailed(f"{each.pod.full_name} does not start; {_tail(log)}")
            time.sleep(_PAUSE_SECONDS)


def until_known(names: Names, pods: Sequence[Pod]) -> None:
    """Return when the proxy of each pod's node has enrolled it, or refuses it: as on a node whose CNI plugin
    sees to it, no process of a pod runs before. Where a proxy does not run, or takes longer than some
    seconds, the pods are on their own."""
    deadline = time.monotonic() + KNOWN_SECONDS
    for pod in pods:
        while run.processes(names.proxy_cgroup(pod.node.name)) and not _is_known(names, pod):
            if time.monotonic() > deadline:
                return
            time.sleep(_PAUSE_SECONDS)


def _is_known(names: Names, pod: Pod) -> bool:
    try:
        _, text = get(names.netns(names.node(pod.node.name)), _ADMIN_PORT, "/config_dump")
        states = json.loads(text)["workloadState"]
    except (LaboratoryFailed, ValueError, KeyError):
        return False
    found: dict[str, Any] = next(
        (state for uid, state in states.items() if uid.endswith(f"/Pod/{pod.full_name}")), {}
    )
    # One of the same name that has just gone has other addresses.
    own = {str(ip) for ip in pod.addresses}
    return found.get("state") == "Pending" or bool(own & set(found.get("addresses", ())))


def until_gone(cgroup: Path, seconds: float = _GONE_SECONDS) -> None:
    """Return when no process is left in a cgroup. Raises LaboratoryFailed."""
    deadline = time.monotonic() + seconds
    while run.populated(cgroup):
        if time.monotonic() > deadline:
            raise LaboratoryFailed(f"processes in {cgroup} do not end")
        time.sleep(_PAUSE_SECONDS)


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:] if log.exists() else []
    return "its log ends:\n" + "\n".join(lines) if lines else "its log is empty"
