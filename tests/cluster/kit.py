"""What only the cluster of ../shared/kube lets a test do to its nodes."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.cluster import KIT_CONFIG, Cluster, Object, wait_until
from ztunnel.kernel import bpf

_PIDS = KIT_CONFIG.parent / "pids"
_LOGS = KIT_CONFIG.parent / "log"
_CGROUPS = Path("/sys/fs/cgroup")
_NEXT_IDS = {"map": 12, "link": 31}
"""BPF_MAP_GET_NEXT_ID, BPF_LINK_GET_NEXT_ID."""


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


@contextmanager
def static_pods(node: str) -> Iterator[Callable[[Object], None]]:
    """Gives what makes a pod a static one of a node, from when its kubelet is started again; in the end there
    is none left. The kubelet goes on looking for them."""
    folder = KIT_CONFIG.parent / "nodes" / node
    settings, manifests = folder / "kubelet.yaml", folder / "kubelet" / "static"
    before = settings.read_text()
    manifests.mkdir(exist_ok=True)
    added = {"staticPodPath": "/var/lib/kubelet/static", "fileCheckFrequency": "1s"}
    settings.write_text(json.dumps(json.loads(before) | added))
    try:
        yield lambda pod: _write(manifests / pod["metadata"]["name"], pod)
    finally:
        settings.write_text(before)
        for each in manifests.iterdir():
            each.unlink()


def _write(place: Path, pod: Object) -> None:
    spec = {name: one for name, one in pod["spec"].items() if name != "nodeName"}
    place.write_text(json.dumps({**pod, "spec": spec}))


def kill(cluster: Cluster, pod: Object, word: str) -> None:
    """-9 of each process of a pod that has this word in its command line."""
    uid, node = pod["metadata"]["uid"], pod["spec"]["nodeName"]
    look = f"grep -q pod{uid} $p/cgroup && tr '\\0' '\\n' <$p/cmdline | grep -qx {word}"
    script = f'for p in /proc/[0-9]*; do {look} && kill -9 "${{p#/proc/}}"; done 2>/dev/null; true'
    cluster.on_node(node, "sh", "-c", script)


def kernel_objects() -> set[tuple[str, int]]:
    """Maps and links of eBPF on this machine, whose kernel the nodes share, by kind and number."""
    return {(kind, number) for kind, next_id in _NEXT_IDS.items() for number in _numbers(next_id)}


def _numbers(next_id: int) -> Iterator[int]:
    attr = ctypes.create_string_buffer(16)
    number = 0
    while True:
        struct.pack_into("I", attr, 0, number)
        code = bpf.call_in_place(next_id, attr)
        if code == errno.ENOENT:
            return
        if code:
            raise OSError(code, f"bpf: {os.strerror(code)}")
        (number,) = struct.unpack_from("I", attr, 4)
        yield number


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
