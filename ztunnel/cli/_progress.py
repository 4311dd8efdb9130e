"""Says on a terminal what is waited for, where that takes longer than a moment."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, Timer
from typing import Final, TextIO

QUIET_SECONDS: Final = 1.0
_CLEAR: Final = "\r\033[K"


class Progress:
    """One line on standard error, written over by the next and gone at the end; of nothing that is no
    terminal."""

    def __init__(self, out: TextIO, text: str, quiet_seconds: float) -> None:
        self._out, self._text, self._shown = out, text, False
        self._lock = Lock()
        self._timer = Timer(quiet_seconds, self._show)
        self._timer.daemon = True

    def begin(self) -> None:
        if self._out.isatty():
            self._timer.start()

    def tell(self, text: str) -> None:
        """What is waited for now."""
        with self._lock:
            self._text = text
            if self._shown:
                self._write(f"{_CLEAR}{text}")

    def end(self) -> None:
        self._timer.cancel()
        with self._lock:
            self._text = ""
            if self._shown:
                self._write(_CLEAR)

    def _show(self) -> None:
        with self._lock:
            if self._text:
                self._shown = True
                self._write(f"{_CLEAR}{self._text}")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


@contextmanager
def progress(
    text: str, out: TextIO | None = None, quiet_seconds: float = QUIET_SECONDS
) -> Iterator[Progress]:
    """Something is waited for in this block; `out` is standard error unless it is said."""
    made = Progress(out or sys.stderr, text, quiet_seconds)
    made.begin()
    try:
        yield made
    finally:
        made.end()
