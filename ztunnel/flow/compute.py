"""Computes in threads what would hold the engine's thread up, and calls back in the engine.

```
submit ──> fair queue ──> a free thread ──> step() ──> eventfd ──> the engine: done(error), next of the queue
```

At most as many steps are under way as there are threads, so that the queue decides who is next.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from select import EPOLLIN
from typing import NamedTuple

from ztunnel.flow.engine import Engine
from ztunnel.flow.queue import FairQueue

Step = Callable[[], None]
Done = Callable[[BaseException | None], None]


class _Piece(NamedTuple):
    step: Step
    done: Done


class Computers:
    """Threads that compute for one engine; they, and the descriptor that tells of their ends, begin with the
    first step."""

    def __init__(self, engine: Engine, threads: int) -> None:
        self._engine = engine
        self._idle = threads
        self._threads = ThreadPoolExecutor(threads, "compute")
        self._waiting: FairQueue[_Piece] = FairQueue()
        self._finished: deque[tuple[Done, Future[None]]] = deque()
        self._signal = -1
        self._closed = False

    def submit(self, pod: Hashable, source: Hashable, step: Step, done: Done) -> None:
        """Have `step` called in a thread when it is its source's turn, and then `done` in the engine: with
        what `step` raised, or None. After `close` nothing is called.

        Raises:
            OSError: no descriptor is left for the first step. It is not called.
        """
        if self._closed:
            return
        if self._signal < 0:
            self._listen()
        self._waiting.push(pod, source, _Piece(step, done))
        self._start()

    def close(self) -> None:
        """Compute nothing more, and wait for what is under way, which is milliseconds; nobody is called
        back."""
        if not self._closed:
            self._closed = True
            self._threads.shutdown(cancel_futures=True)
            if self._signal >= 0:
                self._engine.unwatch(self._signal)
                os.close(self._signal)

    def _listen(self) -> None:
        signal = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self._engine.watch(signal, EPOLLIN, self._collect, self._abandon)
        except OSError:
            os.close(signal)
            raise
        self._signal = signal

    def _start(self) -> None:
        while self._idle and self._waiting:
            self._idle -= 1
            piece = self._waiting.pull()
            self._threads.submit(piece.step).add_done_callback(partial(self._computed, piece.done))

    def _computed(self, done: Done, future: Future[None]) -> None:
        """In the thread."""
        self._finished.append((done, future))
        os.eventfd_write(self._signal, 1)

    def _collect(self, mask: int) -> None:
        os.eventfd_read(self._signal)
        while self._finished:
            self._idle += 1
            done, future = self._finished.popleft()
            # Each by itself: a bug in one is none of the others'.
            self._engine.post(partial(done, future.exception()))
        self._start()

    def _abandon(self, bug: BaseException) -> None:
        """There is no flow to end here."""
