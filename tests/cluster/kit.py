"""What only the cluster of ../shared/kube lets a test do to its nodes."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.cluster.cluster import KIT_CONFIG, Cluster, wait_until

_PIDS = KIT_CONFIG.parent / "pids"
_LOGS = KIT_CONFIG.parent / "log"
_CGROUPS = Path("/sys/fs/cgroup")


def restart(name: str) -> None:
    """A process of a node (`kn1-kubelet`) is killed, and started again as it was."""
    place = _PIDS / f"run-{name}"
    pid = int(place.read_text().split()[0])
    proc = Path(f"/proc/{pid}")
    words = proc.joinpath("cmdline").read_bytes().split(b"\0")[:-1]
    environment = dict(
        one.split(b"=", 1) for one in proc.joinpath("environ").read_bytes().split(b"\0") if one
    )
    cgroups = [_cgroup(line) for line in proc.joinpath("cgroup").read_text().splitlines()]
    for child in proc.joinpath(f"task/{pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    wait_until(f"{name} has ended", lambda: not _runs(pid), 10)
    joined = "".join(f"echo $$ >{each}/cgroup.procs\n" for each in cgroups if each.is_dir())
    # It outlives this process, and is nobody's child.
    script = f'{joined}cd /; exec setsid "$@" </dev/null >>{_LOGS / name}.log 2>&1'
    started = subprocess.run(
        ["sh", "-c", 'sh -c "$0" sh "$@" & echo $!', script, *words],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    pid = int(started.stdout)
    place.write_text(f"{pid} {_birth(pid)}\n")


def is_taken(cluster: Cluster, node: str, addresses: list[str]) -> bool:
    """Whether a pod of that node has one of these."""
    taken = cluster.on_node(node, "ls", "/run/cni-ipam/meshkube").split()
    return bool(set(taken) & set(addresses))


def give_next(cluster: Cluster, node: str, addresses: list[str]) -> None:
    """The next pod of that node gets these addresses, which are free."""
    for address in addresses:
        family = int(":" in address)
        head, colon, last = address.rpartition(":" if family else ".")
        before = f"{int(last, 16) - 1:x}" if family else str(int(last) - 1)
        words = f"cd /run/cni-ipam/meshkube && printf %s {head}{colon}{before} >last_reserved_ip.{family}"
        cluster.on_node(node, "sh", "-c", words)


def _cgroup(line: str) -> Path:
    _, controllers, path = line.split(":", 2)
    return _CGROUPS / (controllers.removeprefix("name=") or "unified") / path.lstrip("/")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _birth(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
