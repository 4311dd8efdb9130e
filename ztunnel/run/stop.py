"""Hears when the process is to end: by a signal or by the admin page; asked a second time, without a drain.

```
starting ──ask──> its scope is cancelled
started  ──ask──> asked: a drain begins ──ask──> urged: it ends now
```
"""

from __future__ import annotations

import signal

import trio


class Stop:
    """The end of one process.

    Attributes:
        starting: what is done in this scope before `started()` is cancelled when the end is asked for.
        asked: the process is to end, with a drain.
        urged: it is to end now.
        leaves: nobody comes after it: what it has made goes with it.
        exit_code: that of the process; not 0 where it is to be started again.
    """

    def __init__(self) -> None:
        self.starting = trio.CancelScope()
        self.asked = trio.Event()
        self.urged = trio.Event()
        self.leaves = False
        self.exit_code = 0
        self._is_started = False

    def started(self) -> None:
        """From now on the end is for whoever waits for `asked`; the scope is not cancelled any more."""
        self._is_started = True

    def ask(self) -> None:
        """The process is to end; asked again, at once."""
        if self.asked.is_set():
            self.urged.set()
        self.asked.set()
        if not self._is_started:
            self.starting.cancel()

    async def hear(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take SIGTERM and SIGINT as `ask`, until cancelled. Main thread only."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for _ in signals:
                self.ask()
