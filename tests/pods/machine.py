"""A kubelet's traces on this machine: log directories, cgroups of its own below cgroup v2, and processes in
namespaces."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.kernel.lab import unique, wait_until
from ztunnel.kernel import cgroup

UID = "0e78bcdb-6e71-431e-8d20-ca38798ff247"
OTHER = "1e78bcdb-6e71-431e-8d20-ca38798ff247"


class Process:
    """Sleeps in a cgroup, and in a network namespace once it is told to enter."""

    def __init__(self, directory: Path, namespace: str) -> None:
        words = f"echo $$ > {directory}/cgroup.procs; echo; read _; exec nsenter --net={namespace} sleep 999"
        self._child = subprocess.Popen(
            ["sh", "-c", words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._child.stdout
        self._child.stdout.readline()
        self.pid = self._child.pid

    def enter(self) -> Process:
        home = Path("/proc/self/ns/net").stat().st_ino
        assert self._child.stdin
        self._child.stdin.write(b"\n")
        self._child.stdin.flush()
        wait_until(lambda: Path(f"/proc/{self.pid}/ns/net").stat().st_ino != home)
        return self

    def end(self) -> None:
        self._child.kill()
        self._child.communicate()


class Kubelet:
    """Use as a context manager: what is left is removed."""

    def __init__(self, place: Path) -> None:
        self.logs = place / "pods"
        self.logs.mkdir()
        self.root = cgroup.find_root() / unique()
        self.mounts = place / "mounts"
        self.mounts.write_text(f"none {self.root} cgroup2 rw 0 0\n")
        self._stack = ExitStack()

    def __enter__(self) -> Kubelet:
        self.root.mkdir()
        self._stack.callback(remove, self.root)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def pod(self, namespace: str, name: str, uid: str = UID, parent: str = "kubepods/besteffort") -> Path:
        """Its log directory and its cgroup, as a kubelet makes them before anything runs."""
        (self.logs / f"{namespace}_{name}_{uid}").mkdir()
        directory = self.root / parent / f"pod{uid}"
        directory.mkdir(parents=True)
        return directory

    def start(self, pod: Path, namespace: str, container: str = "c1") -> Process:
        """A container's first process, on its way into the namespace."""
        (pod / container).mkdir(exist_ok=True)
        made = Process(pod / container, namespace)
        self._stack.callback(made.end)
        return made

    @contextmanager
    def running(self, pod: Path, namespace: str, container: str = "c1") -> Iterator[Process]:
        made = self.start(pod, namespace, container).enter()
        yield made
        made.end()
        remove(pod / container)


def remove(directory: Path) -> None:
    """A cgroup and all below it, in which no process is any more, or will be in a moment."""
    for inner in [each for each in directory.iterdir() if each.is_dir()]:
        remove(inner)

    def gone() -> bool:
        with suppress(OSError):
            directory.rmdir()
        return not directory.exists()

    wait_until(gone)
