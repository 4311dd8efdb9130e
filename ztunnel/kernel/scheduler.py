"""When the kernel's scheduler lets the thread of the connections run (sched_setattr(2))."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import Final

_SETATTR: Final = {"x86_64": 314, "s390x": 345, "ppc64le": 355}.get(platform.machine(), 274)
_RESET_ON_FORK: Final = 1
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")  # struct sched_attr, SCHED_ATTR_SIZE_VER0
_libc = ctypes.CDLL(None, use_errno=True)

SLICE_SECONDS: Final = 0.0001
"""The least that the kernel takes (EEVDF: Linux 6.12; an older one takes no notice)."""


def ask_for_short_slices() -> None:
    """Let the calling thread run as soon as it is woken up, for little at a time: else it waits, where
    somebody else needs the CPU, until the next tick, which is 4 ms. It gets no more of the CPU than before.

    Threads and processes that it starts have the kernel's own slice. Where somebody has chosen another
    policy for us (chrt), that stays. Raises OSError: not allowed (seccomp).
    """
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    runtime = int(SLICE_SECONDS * 1e9)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, _RESET_ON_FORK, nice, 0, runtime, 0, 0)
    if _libc.syscall(_SETATTR, 0, attributes, 0) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"sched_setattr: {os.strerror(code)}")
