"""Memory that is given back."""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path

from ztunnel.kernel import memory

COUNT, BYTES = 4000, 20_000


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_what_is_free_below_something_that_is_not_is_given_back() -> None:
    memory.share_arenas()
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    held = [libc.malloc(BYTES) for _ in range(COUNT)]
    for address in held:
        ctypes.memset(address, 1, BYTES)
    full = resident_bytes()
    for address in held[:-1]:
        libc.free(address)
    memory.give_back()
    assert full - resident_bytes() > COUNT * BYTES * 0.8
    libc.free(held[-1])
    memory.give_back()
