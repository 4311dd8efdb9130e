"""Tells that something was mounted or unmounted: a network namespace gets its name by a mount."""

from __future__ import annotations

import os
from select import EPOLLPRI

MOUNTED = EPOLLPRI
"""What to wait for: the file itself is always readable (fs/proc_namespace.c, `mounts_poll`)."""


class MountEvents:
    """The mounts of this process' mount namespace."""

    def __init__(self, place: str = "/proc/self/mountinfo") -> None:
        """Raises OSError."""
        self._fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)

    def fileno(self) -> int:
        """`MOUNTED` is reported once for what has changed since the last time."""
        return self._fd

    def close(self) -> None:
        """Listen no more."""
        os.close(self._fd)
