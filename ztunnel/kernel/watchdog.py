"""Notices that the one thread which serves all pods stands still: says where, and in the end exits.

```
beats ── none for 3 s ──> the stacks of all threads on stderr ── none for 5 s ──> the same again, and exit
                                       no thread of ours runs at all ── none for 30 s ──> the same
```

What is pinned goes on refusing meanwhile and afterwards, and whoever started the process starts it again.
Seconds are those that the thread which looks has run for: a process that was stopped as a whole (SIGSTOP, a
frozen cgroup, a machine that sleeps) goes on where it was. The last part is a C thread's (faulthandler),
which needs nothing of an interpreter that hangs.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

STACKS_SECONDS = 3.0
EXIT_SECONDS = 5.0
HANG_SECONDS = 30.0
BEAT_SECONDS = 0.5
_LOOK_SECONDS = 0.25


class Watchdog:
    """One for the process.

    Attributes:
        exit_seconds: how long it may stand still; more while a large world is read for the first time.
        stalls: how often the thread stood still and went on.
        before_exit: called in another thread before it exits.

    Use as a context manager: outside of it nothing is watched.
    """

    def __init__(
        self,
        stacks_seconds: float = STACKS_SECONDS,
        exit_seconds: float = EXIT_SECONDS,
        hang_seconds: float = HANG_SECONDS,
        out: TextIO | None = None,
    ) -> None:
        """`out` has a descriptor; None is stderr."""
        self.stalls = 0
        self.before_exit: Callable[[], None] = _nothing
        self._hang_seconds = hang_seconds
        self._stacks_seconds = stacks_seconds
        self.exit_seconds = exit_seconds
        self._out = out
        self._beaten_at = time.monotonic()
        self._ended = threading.Event()

    def __enter__(self) -> Watchdog:
        self.beat()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        faulthandler.cancel_dump_traceback_later()

    def beat(self) -> float:
        """The thread turns. Every half a second; returns for how long it stood still before, mostly 0."""
        now = time.monotonic()
        stood, self._beaten_at = now - self._beaten_at, now
        faulthandler.dump_traceback_later(self._hang_seconds, exit=True, file=self._out or sys.stderr)
        if stood < self._stacks_seconds:
            return 0.0
        self.stalls += 1
        return stood

    def observe(self) -> None:
        """Write the stacks once for each time that the thread stands still, and end the process where it does
        not go on. Blocks until the end: in a thread of its own."""
        told_at, stood, looked_at = 0.0, 0.0, time.monotonic()
        while not self._ended.wait(_LOOK_SECONDS):
            now, beaten_at = time.monotonic(), self._beaten_at
            # Where we have not run either, the thread is not to blame.
            stood = 0.0 if beaten_at > looked_at else stood + min(now - looked_at, 2 * _LOOK_SECONDS)
            looked_at = now
            if stood >= self.exit_seconds:
                self._write(now - beaten_at)
                self.before_exit()
                os._exit(1)
            if stood >= self._stacks_seconds and told_at <= beaten_at:
                told_at = now
                self._write(now - beaten_at)

    def _write(self, seconds: float) -> None:
        out = self._out or sys.stderr
        print(f"the main thread has stood still for {seconds:.1f} s:", file=out, flush=True)
        faulthandler.dump_traceback(file=out, all_threads=True)


def _nothing() -> None:
    """Nobody wants to know."""
