"""How much of the machine others had while something was measured.

A round in which that was much is repeated. What others had is the machine's time, less the time that the
laboratory's cgroup and the benchmark itself have used; what a hypervisor kept for itself counts as theirs.
Interrupts and the work that the kernel does in them are nobody's.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MOST_CORES: Final = 0.25
"""A round in which others had more than this is disturbed: an eighth of two cores."""
_LOOK_SECONDS: Final = 0.25

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Used:
    """Seconds of CPU that were used up to a moment, by everybody and by us."""

    at: float
    everybody: float
    ours: float


def cores_of_others(before: Used, after: Used) -> float:
    """How many cores others had between two moments."""
    elapsed = after.at - before.at
    theirs = (after.everybody - before.everybody) - (after.ours - before.ours)
    return max(theirs, 0.0) / elapsed if elapsed > 0 else 0.0


def parse_stat(text: str, ticks: int = _TICKS) -> float:
    """Seconds in user and kernel mode, and stolen, of all processors together (proc(5), /proc/stat)."""
    user, nice, system, _idle, _iowait, _irq, _softirq, stolen = map(int, text.splitlines()[0].split()[1:9])
    return (user + nice + system + stolen) / ticks


def parse_cpu(text: str) -> float:
    """Seconds of a cgroup's cpu.stat."""
    return int(dict(line.split() for line in text.splitlines())["usage_usec"]) / 1e6


class Watch:
    """Tells what others have of the machine beside the processes of one cgroup."""

    def __init__(self, cgroup: Path, patience_seconds: float, use: Callable[[], Used] | None = None) -> None:
        """`patience_seconds`: for others to end before rounds begin, in all; `use` reads the clock and the
        kernel's counters."""
        self._cgroup = cgroup
        self._use = use or self._read
        self._began = self._use()
        self._patience = patience_seconds

    def _read(self) -> Used:
        own = resource.getrusage(resource.RUSAGE_SELF)
        ours = parse_cpu((self._cgroup / "cpu.stat").read_text()) + own.ru_utime + own.ru_stime
        return Used(time.monotonic(), parse_stat(Path("/proc/stat").read_text()), ours)

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
