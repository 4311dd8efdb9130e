"""Starts and ends the processes of a laboratory, known by their cgroups: they are found after any crash."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ztunnel.demo import command
from ztunnel.demo.cluster import Node, Pod
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.names import Names

_PATIENCE_SECONDS = 10.0
_PAUSE_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Started:
    """A program of a pod that was started; `stands_in` as of `command.Program`."""

    pod: Pod
    process: subprocess.Popen[bytes]
    stands_in: bool


def start_pod(names: Names, pod: Pod, variables: Mapping[str, str] | None = None) -> list[Started]:
    """Run the programs of a pod, with their output in the pod's log, which begins anew. `variables`: those of
    a control plane over the network, for a waypoint."""
    log = names.pod_log(pod.namespace, pod.name)
    log.unlink(missing_ok=True)
    started = []
    for each in command.programs(pod):
        words, environment = command.completed(names, each, os.environ, variables)
        process = background(command.in_pod(names, pod, words), environment, log, "ab")
        started.append(Started(pod, process, each.stands_in))
    return started


def start_node(
    names: Names, node: Node, variables: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Run a node's proxy, with its output added to the node's log. `variables`: those of a control plane
    over the network."""
    words = command.node_command(names, node, os.environ)
    argv = command.in_node(names, node.name, names.proxy_cgroup(node.name), words)
    environment = {**command.node_environment(os.environ), **(variables or {})}
    return background(argv, environment, names.node_directory(node.name) / "log", "ab")


def processes(cgroup: Path) -> list[int]:
    """The processes of a cgroup, without those of the cgroups below it."""
    try:
        return [int(line) for line in (cgroup / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def populated(cgroup: Path) -> bool:
    """Whether a process lives in the cgroup or below it; zombies do not."""
    try:
        return "populated 1" in (cgroup / "cgroup.events").read_text()
    except OSError:
        return False


def send(cgroup: Path, number: signal.Signals) -> int:
    """Send a signal to every process of the cgroup; how many there were."""
    found = processes(cgroup)
    for pid in found:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
    return len(found)


def end_processes(pids: Sequence[int]) -> None:
    """Ask each of these to end."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def end(cgroup: Path) -> None:
    """Kill everything in the cgroup and below, and remove them all. A cgroup that is not there is fine.

    A process that was just being started may join late: it is killed on the next round.

    Raises:
        LaboratoryFailed: processes outlived SIGKILL for ten seconds.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while cgroup.exists():
        below = sorted((path for path in cgroup.rglob("*") if path.is_dir()), reverse=True)
        _kill(cgroup, below)
        try:
            for path in (*below, cgroup):
                path.rmdir()
        except OSError as error:
            if time.monotonic() > deadline:
                raise LaboratoryFailed(f"processes below {cgroup} do not end: {error}") from error
            time.sleep(_PAUSE_SECONDS)


def end_in(names: Names, netns: str) -> None:
    """Kill the pod that runs in a network namespace, whoever it is. Raises LaboratoryFailed, as `end`."""
    try:
        wanted = names.netns(netns).stat().st_ino
    except OSError:
        return
    for cgroup in names.cgroup.glob("*/kubepods/pod*"):
        if any(_netns_of(pid) == wanted for pid in processes(cgroup)):
            end(cgroup)


def _netns_of(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return 0


def _kill(cgroup: Path, below: Sequence[Path]) -> None:
    try:
        (cgroup / "cgroup.kill").write_text("1")
    except OSError:  # before Linux 5.14, or it is gone
        for path in (cgroup, *below):
            send(path, signal.SIGKILL)


def background(
    argv: Sequence[str], environment: Mapping[str, str], log: Path, mode: str
) -> subprocess.Popen[bytes]:
    """Start a program that outlives us, with its output in `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open(mode) as output:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd="/",
            start_new_session=True,
        )
