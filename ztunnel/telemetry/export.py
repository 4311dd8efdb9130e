"""Writes log lines without ever making the data path wait.

Lines are put into a bounded buffer and written in batches. Where the reader of the log is slow, gone, or the
disk is full, lines stay in the buffer; once that is full, new ones are dropped and counted. A line that was
written in part is completed before anything else is written.
"""

from __future__ import annotations

import os
import select
import stat
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import trio

from ztunnel.drain import closing
from ztunnel.telemetry.access_log import SCOPE
from ztunnel.telemetry.figures import Figures
from ztunnel.telemetry.level import Level, Levels
from ztunnel.telemetry.line import render_json, render_text, text_head, timestamp
from ztunnel.telemetry.line_buffer import LineBuffer

_FLUSH_BYTES = 1 << 20  # what one flush writes at most: about a millisecond
_FILE_CHUNK_BYTES = 1 << 16
_FLUSH_SECONDS = 0.1
_GOODBYE_SECONDS = 1.0


class LineWriter:
    """A bounded buffer of lines in front of a file descriptor, which stays the caller's.

    Attributes:
        buffer: the lines that wait.
        errors: failed writes.

    The descriptor is usually standard output, whose file description others share: it is left in the mode
    that it has. Where it is no regular file, it is asked first whether it takes a page and given no more than
    that at once, which does not block even in blocking mode (pipe(7), PIPE_BUF).
    """

    def __init__(self, fd: int, limit: int = 10_000) -> None:
        self._fd = fd
        self.buffer = LineBuffer(limit)
        self._rest = b""
        self._poll: select.poll | None = None
        self._chunk_bytes = _FILE_CHUNK_BYTES
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            self._poll = select.poll()
            self._poll.register(fd, select.POLLOUT)
            self._chunk_bytes = select.PIPE_BUF
        self.errors = 0

    def put(self, line: str, urgent: bool = False) -> bool:
        """Take a line without its end; False if the buffer is full and the line was dropped.

        An urgent line may use 1,000 places more than the others.
        """
        return self.buffer.put(line, urgent)

    def flush(self) -> bool:
        """Write what the descriptor takes now, at most 1 MiB; True if nothing is left.

        An error of the descriptor (no space, no reader) is counted, and what it concerned stays for the next
        call.
        """
        budget = _FLUSH_BYTES
        while budget > 0:
            if not self._rest:
                self._rest = self._chunk()
                if not self._rest:
                    return True
            try:
                if self._poll is not None and not self._poll.poll(0):
                    return False
                written = os.write(self._fd, self._rest[: self._chunk_bytes])
            except BlockingIOError:
                return False
            except OSError:
                self.errors += 1
                return False
            self._rest = self._rest[written:]
            budget -= written
        return not (self._rest or self.buffer.waiting)

    async def run(self) -> None:
        """Flush ten times a second while there are lines, until cancelled, and then for up to a second what
        is left."""
        try:
            while True:
                await self._line()
                await trio.sleep(_FLUSH_SECONDS)
                self.flush()
        finally:
            with closing(_GOODBYE_SECONDS):
                while not self.flush():  # noqa: ASYNC110 (nothing tells that a descriptor takes bytes again)
                    await trio.sleep(_FLUSH_SECONDS / 10)

    async def _line(self) -> None:
        """Wait until there is one: an idle process is not to be woken ten times a second for none. Lines come
        from other threads as well."""
        put, token = trio.Event(), trio.lowlevel.current_trio_token()

        def wake() -> None:
            with suppress(trio.RunFinishedError):  # who still writes lines then is no matter of ours
                token.run_sync_soon(put.set)

        self.buffer.on_line = wake
        try:
            if not self.buffer.waiting and not self._rest:
                await put.wait()
        finally:
            self.buffer.on_line = None

    def _chunk(self) -> bytes:
        """The next lines, as many as one write takes; one line at least, if there is one."""
        lines = self.buffer.waiting
        parts: list[bytes] = []
        room = self._chunk_bytes
        while lines and room > 0:
            line = (lines[0] + "\n").encode("utf-8", "backslashreplace")
            if len(line) > room and parts:
                break
            room -= len(line)
            parts.append(line)
            lines.popleft()
        return b"".join(parts)


class AccessLog:
    """Takes the lines of connections; `wants` tells before a line is made whether one of its level would be
    written now: scope `access` of the levels."""

    def __init__(self, writer: LineWriter, levels: Levels) -> None:
        self._writer = writer
        self.wants: Callable[[Level], bool] = partial(levels.enabled, SCOPE)
        self.write: Callable[[str], None] = writer.buffer.offer
        """Takes a line without its end; dropped and counted if the buffer is full."""

        self.dropped = 0
        """Of lines that went to other writers."""

    def register(self, figures: Figures) -> None:
        """Bring the figures of this log and its writer to the register."""
        figures.counter(
            "ztunnel_access_log_dropped_total",
            "Lines of the access log that were dropped because the reader of the log is too slow",
            lambda: self.dropped + self._writer.buffer.dropped,
        )
        figures.counter(
            "ztunnel_log_write_errors_total", "Failed writes to the log", lambda: self._writer.errors
        )


class Log:
    """Messages of the proxy itself, in the form of the access log; `scope` names the part that speaks."""

    def __init__(
        self,
        writer: LineWriter,
        levels: Levels,
        now_ns: Callable[[], int],
        as_json: bool = False,
        scope: str = "ztunnel",
    ) -> None:
        """`now_ns` gives nanoseconds since the epoch."""
        self._writer = writer
        self._levels = levels
        self._now_ns = now_ns
        self._as_json = as_json
        self._scope = scope

    def scoped(self, scope: str) -> Log:
        """The same log for another part."""
        return Log(self._writer, self._levels, self._now_ns, self._as_json, scope)

    def trace(self, message: str, **fields: str | int | float | bool) -> None:
        """For who reads the code beside it."""
        self._write(Level.TRACE, message, fields)

    def debug(self, message: str, **fields: str | int | float | bool) -> None:
        """What helps to find a fault and would be too much every day."""
        self._write(Level.DEBUG, message, fields)

    def info(self, message: str, **fields: str | int | float | bool) -> None:
        """A change of state that an operator may want to see."""
        self._write(Level.INFO, message, fields)

    def warn(self, message: str, **fields: str | int | float | bool) -> None:
        """Something is not as it should be, and the proxy goes on."""
        self._write(Level.WARN, message, fields)

    def error(self, message: str, **fields: str | int | float | bool) -> None:
        """Something that an operator has to do something about."""
        self._write(Level.ERROR, message, fields)

    def bug(self, error: BaseException) -> None:
        """An error that nobody expected: a line for each, with the innermost places of its stack first."""
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                self.bug(inner)
            return
        frames = reversed(traceback.extract_tb(error.__traceback__))
        stack = " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
        self.error("internal error", error=f"{type(error).__name__}: {error}", stack=stack)

    def _write(self, level: Level, message: str, fields: dict[str, str | int | float | bool]) -> None:
        if not self._levels.enabled(self._scope, level):
            return
        time = timestamp(self._now_ns())
        if self._as_json:
            line = render_json(time, level, self._scope, message, fields.items())
        else:
            line = render_text(text_head(time, level, self._scope), message, fields.items())
        self._writer.put(line, urgent=level >= Level.WARN)
