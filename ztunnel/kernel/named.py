"""Named network namespaces, as `ip netns` keeps them: files on which a namespace is mounted.

A thread makes one and comes back, without a process of its own as pyroute2's `netns.create` has it, which
takes 47 ms for each.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

from ztunnel.kernel.netns import current

_CLONE_NEWNET = 0x40000000
_MS_BIND, _MS_REC, _MS_SHARED, _MNT_DETACH = 0x1000, 0x4000, 1 << 20, 2
_libc = ctypes.CDLL(None, use_errno=True)


def create(path: Path) -> None:
    """A new namespace with a name. Raises OSError: there is one of that name, or the kernel refuses; nothing
    is left then."""
    _share(path.parent)
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    try:
        with current() as home, home.entered():  # comes back at the end of the block
            _call(_libc.unshare(_CLONE_NEWNET))
            _call(_libc.mount(b"/proc/thread-self/ns/net", os.fsencode(path), b"none", _MS_BIND, None))
    except OSError:
        path.unlink()
        raise


def remove(path: Path) -> None:
    """Take the name away: the namespace ends when nothing is in it any more. Raises OSError."""
    with suppress(OSError):  # nothing is mounted on it
        _call(_libc.umount2(os.fsencode(path), _MNT_DETACH))
    path.unlink()


def _share(directory: Path) -> None:
    """What is mounted in it is seen in all mount namespaces, and so is its end (as iproute2 does it)."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    where = os.fsencode(directory)
    if _libc.mount(b"", where, b"none", _MS_SHARED | _MS_REC, None):
        _call(_libc.mount(where, where, b"none", _MS_BIND | _MS_REC, None))
        _call(_libc.mount(b"", where, b"none", _MS_SHARED | _MS_REC, None))


def _call(result: int) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
