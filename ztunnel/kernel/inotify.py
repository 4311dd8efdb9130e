"""Inotify: tells in which directories something has come or gone. Works on cgroup v2, bpffs and /run/netns;
not on what the kernel itself makes in /proc."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from contextlib import suppress

_CREATE, _DELETE, _MOVED, _DELETE_SELF, _ONLYDIR = 0x100, 0x200, 0xC0, 0x400, 0x1000000
_MASK = _CREATE | _DELETE | _MOVED | _DELETE_SELF | _ONLYDIR
_OVERFLOW = 0x4000
_EVENT = struct.Struct("=iIII")  # struct inotify_event, before the name
_READ_BYTES = 1 << 16
_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """Watches directories. Not what has changed is told, but where: whoever wants to know looks."""

    def __init__(self) -> None:
        """Raises OSError: EMFILE where root has too many of these (fs.inotify.max_user_instances)."""
        self._fd: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise _error("inotify_init1")
        self._watches: dict[str, int] = {}

    def fileno(self) -> int:
        """Readable when something has changed."""
        return self._fd

    def watch_only(self, paths: Iterable[str]) -> None:
        """Watch these directories and no others. One that is not there is left out; its parent tells when it
        comes. Raises OSError: ENOSPC where there are too many watches (fs.inotify.max_user_watches)."""
        wanted = set(paths)
        for path in self._watches.keys() - wanted:
            _libc.inotify_rm_watch(self._fd, self._watches.pop(path))  # it may be gone with its directory
        for path in wanted:  # also those that are watched: the directory may be another one of the same name
            number = _libc.inotify_add_watch(self._fd, os.fsencode(path), _MASK)
            if number >= 0:
                self._watches[path] = number
            elif ctypes.get_errno() not in (errno.ENOENT, errno.ENOTDIR):
                raise _error(path)

    def drain(self) -> bool:
        """Forget what was told; whether there was anything. Never waits."""
        return self.changed() != frozenset()

    def changed(self) -> frozenset[str] | None:
        """The directories in which something has changed since the last time; None where it was too much to
        be told. Never waits."""
        paths = {number: path for path, number in self._watches.items()}
        changed: set[str] = set()
        overflow = False
        with suppress(BlockingIOError):
            while read := os.read(self._fd, _READ_BYTES):
                offset = 0
                while offset < len(read):
                    number, mask, _, length = _EVENT.unpack_from(read, offset)
                    offset += _EVENT.size + length
                    overflow = overflow or bool(mask & _OVERFLOW)
                    if number in paths:
                        changed.add(paths[number])
        return None if overflow else frozenset(changed)

    def close(self) -> None:
        """Watch no more."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> Inotify:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _error(what: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{what}: {os.strerror(code)}")
