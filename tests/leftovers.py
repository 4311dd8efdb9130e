"""What a run leaves behind on the machine: namespaces, interfaces, cgroups, pins, shared files and processes.

    python -m tests.leftovers COMMAND...

runs COMMAND and fails, naming each thing, if afterwards something is there that was not there before. Other
laboratories may run at the same time: what a process outside the run still uses, or what carries the id of
such a process in its name, is theirs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "ZTUNNEL_TEST_RUN"  # an environment variable that every process of a run inherits
PATIENCE_SECONDS = 3.0  # the kernel removes a namespace a little later than its last user ends

# (kind, name), such as ("namespace", "zt-17-1") or ("pin", "/sys/fs/bpf/ztunnel/n1/own")
Thing = tuple[str, str]


def things() -> set[Thing]:
    """All that a laboratory can leave on the machine, of anybody."""
    return {
        *(("namespace", path.name) for path in entries(Path("/run/netns"))),
        *(("interface", path.name) for path in entries(Path("/sys/class/net"))),
        *(("pin", str(path)) for path in below(Path("/sys/fs/bpf/ztunnel"))),
        *(("file", str(path)) for path in entries(Path("/run/ztunnel"))),
        *(("cgroup", str(path)) for mount in cgroup_mounts() for path in cgroups(mount)),
    }


def processes() -> dict[int, tuple[float, str]]:
    """Start time (ticks since boot) and command line of every process, by id."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            started = float((path / "stat").read_text().rpartition(")")[2].split()[19])
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if command:
            found[int(path.name)] = (started, command)
    return found


def pids_in(name: str) -> set[int]:
    """The numbers in a name, each of which may be the id of the process that chose the name."""
    return {int(number) for number in re.findall(r"\d+", name)}


def entries(folder: Path) -> list[Path]:
    """What is in a folder, empty if there is none."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def below(folder: Path) -> Iterator[Path]:
    """Everything below a folder that may change meanwhile."""
    return (Path(top, name) for top, folders, files in os.walk(folder) for name in (*folders, *files))


def cgroup_mounts() -> list[Path]:
    """Where cgroup v2 is mounted; on a hybrid machine not at /sys/fs/cgroup."""
    lines = Path("/proc/mounts").read_text().splitlines()
    return [Path(fields[1]) for line in lines if (fields := line.split())[2] == "cgroup2"]


def cgroups(mount: Path) -> Iterator[Path]:
    """Our cgroups, wherever they stand in the tree: those with a name that starts with `zt`."""
    return (
        Path(top, name) for top, folders, _ in os.walk(mount) for name in folders if name.startswith("zt")
    )


def run_processes(mark: str, before: dict[int, tuple[float, str]]) -> set[Thing]:
    """The processes that this run began and that still live."""
    found = set()
    for pid, (started, command) in processes().items():
        if pid == os.getpid() or before.get(pid, (0.0, ""))[0] == started:
            continue
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"{MARK}={mark}".encode() in environment:
            found.add(("process", f"{pid} {command}"))
    return found


def users_of_namespaces() -> dict[int, set[int]]:
    """The ids of the processes in each network namespace, by the namespace's inode."""
    users: dict[int, set[int]] = {}
    for path in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            users.setdefault(path.stat().st_ino, set()).add(int(path.parts[2]))
        except OSError:
            continue
    return users


def is_held(thing: Thing) -> bool:
    """Whether somebody who lives after the run accounts for it."""
    kind, name = thing
    laboratories = {pid for pid, (_, command) in processes().items() if "python" in command}
    if pids_in(name) & laboratories - {os.getpid()}:
        return True
    if kind == "namespace":
        try:
            return bool(users_of_namespaces().get(Path("/run/netns", name).stat().st_ino))
        except OSError:
            return True  # gone meanwhile
    return False


def left_by(mark: str, before: set[Thing], processes_before: dict[int, tuple[float, str]]) -> list[Thing]:
    """What is new and nobody else's. Waits a little for what is about to go."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        running = run_processes(mark, processes_before)
        left = sorted(running | {thing for thing in things() - before if running or not is_held(thing)})
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def main(command: list[str]) -> int:
    """Runs the command; its exit status, or 1 if it left something."""
    mark = str(os.getpid())
    before, processes_before = things(), processes()
    status = subprocess.run(command, env={**os.environ, MARK: mark}, check=False).returncode
    left = left_by(mark, before, processes_before)
    for kind, name in left:
        print(f"left behind: {kind} {name}", file=sys.stderr)
    return status or bool(left)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
