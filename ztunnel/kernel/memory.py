"""Memory that this process has no use for goes back to the machine (glibc; elsewhere nothing is done)."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8
_ARENAS = 2


def share_arenas() -> None:
    """Let all threads share two arenas: with one for each thread, what a flood of handshakes took would stay
    in arenas that nobody uses again. To be called before there are threads."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Give free pages back. Blocks for some milliseconds, and holds up whoever allocates meanwhile."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
