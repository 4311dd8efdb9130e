"""A file that lines of an access log are appended to."""

from __future__ import annotations

import os

from ztunnel.telemetry.export import LineWriter


class LogFile:
    """A file that lines are appended to. It is closed when nobody writes it any more."""

    def __init__(self, path: str) -> None:
        """Raises OSError."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        self._fd = os.open(path, flags, 0o640)
        self.writer = LineWriter(self._fd)

    async def run(self) -> None:
        """Write what comes until cancelled, then what is left, for a moment."""
        try:
            await self.writer.run()
        finally:
            os.close(self._fd)

    def close(self) -> None:
        """It was never run: write what it takes at once."""
        self.writer.flush()
        os.close(self._fd)
