"""How much of the machine others had while something was measured.

A round in which that was much is repeated. Others are the processes that are neither in the laboratory's
cgroup nor this one, with their children that have ended meanwhile; what a hypervisor kept for itself counts
as theirs. What the kernel's own threads do, which is to carry packets above all, is nobody's.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

MOST_CORES: Final = 0.25
"""A round in which others had more than this is disturbed: an eighth of two cores."""
_LOOK_SECONDS: Final = 0.25
_KERNEL_THREAD: Final = 0x00200000
"""PF_KTHREAD (include/linux/sched.h)."""

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Used:
    """Seconds of processors that others had used up to a moment."""

    at: float
    others: float


def cores_of_others(before: Used, after: Used) -> float:
    """How many cores others had between two moments."""
    elapsed = after.at - before.at
    return max(after.others - before.others, 0.0) / elapsed if elapsed > 0 else 0.0


def stolen_seconds(text: str, ticks: int = _TICKS) -> float:
    """What a hypervisor has kept, of all processors together (proc(5), /proc/stat)."""
    return int(text.splitlines()[0].split()[8]) / ticks


def process_seconds(text: str, ticks: int = _TICKS) -> float:
    """What a process and its children that have ended have used, of its line in /proc/PID/stat; 0 of a thread
    of the kernel."""
    fields = text.rpartition(")")[2].split()
    return 0.0 if int(fields[6]) & _KERNEL_THREAD else sum(map(int, fields[11:15])) / ticks


def processes_of_others(cgroup: Path) -> list[int]:
    """All but this one and those of a cgroup and below."""
    ours = {os.getpid()}
    for file in cgroup.rglob("cgroup.procs"):
        try:
            ours.update(map(int, file.read_text().split()))
        except OSError:  # it has gone
            continue
    return [pid for folder in Path("/proc").glob("[0-9]*") if (pid := int(folder.name)) not in ours]


def read_used(cgroup: Path) -> Used:
    """Up to now, beside the processes of that cgroup and this one."""
    seconds = stolen_seconds(Path("/proc/stat").read_text())
    for pid in processes_of_others(cgroup):
        try:
            seconds += process_seconds(Path(f"/proc/{pid}/stat").read_text())
        except OSError:  # it has ended
            continue
    return Used(time.monotonic(), seconds)


class Watch:
    """Tells what others have of the machine."""

    def __init__(self, use: Callable[[], Used], patience_seconds: float) -> None:
        """`use` reads the clock and the counters; `patience_seconds`: for others to end before rounds begin,
        in all."""
        self._use = use
        self._began = use()
        self._patience = patience_seconds

    def begin(self) -> None:
        """A round begins: as soon as others leave the machine, or when patience is at its end."""
        while True:
            before = self._use()
            time.sleep(_LOOK_SECONDS)
            self._began = self._use()
            if cores_of_others(before, self._began) <= MOST_CORES or self._patience <= 0:
                return
            self._patience -= _LOOK_SECONDS

    def disturbed(self) -> bool:
        """Whether others had too much of the machine since `begin`."""
        cores = cores_of_others(self._began, self._use())
        if cores > MOST_CORES:
            print(f"  others had {cores:.2f} cores in this round", file=sys.stderr)
        return cores > MOST_CORES


def watch_beside(cgroup: Path, patience_seconds: float) -> Watch:
    """Of the machine beside the processes of a cgroup."""
    return Watch(partial(read_used, cgroup), patience_seconds)
