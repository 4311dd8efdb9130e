"""Notices that the one thread which serves all pods stands still: says where, and in the end exits.

```
beats ── none for 3 s ──> the stacks of all threads on stderr ── none for 30 s ──> the same again, and exit
```

What is pinned goes on refusing meanwhile and afterwards, and whoever started the process starts it again. The
second part is a C thread's (faulthandler), which needs nothing of an interpreter that hangs. A process that
was stopped (SIGSTOP, a frozen cgroup) is no different from one that hangs, but that its stacks say nothing.
"""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
from typing import TextIO

STACKS_SECONDS = 3.0
EXIT_SECONDS = 30.0
BEAT_SECONDS = 0.5
_LOOK_SECONDS = 0.25


class Watchdog:
    """One for the process. `stalls` counts how often the thread stood still and went on.

    Use as a context manager: outside of it nothing is watched.
    """

    def __init__(
        self,
        stacks_seconds: float = STACKS_SECONDS,
        exit_seconds: float = EXIT_SECONDS,
        out: TextIO | None = None,
    ) -> None:
        """`out` has a descriptor; None is stderr."""
        self.stalls = 0
        self._stacks_seconds = stacks_seconds
        self._exit_seconds = exit_seconds
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
        faulthandler.dump_traceback_later(self._exit_seconds, exit=True, file=self._out or sys.stderr)
        if stood < self._stacks_seconds:
            return 0.0
        self.stalls += 1
        return stood

    def observe(self) -> None:
        """Write the stacks once for each time that the thread stands still. Blocks until the end: in a thread
        of its own."""
        told_at = 0.0
        while not self._ended.wait(_LOOK_SECONDS):
            now = time.monotonic()
            beaten_at = self._beaten_at
            if now - beaten_at < self._stacks_seconds or told_at > beaten_at:
                continue
            told_at = now
            out = self._out or sys.stderr
            print(f"the main thread has stood still for {now - beaten_at:.1f} s:", file=out, flush=True)
            faulthandler.dump_traceback(file=out, all_threads=True)
