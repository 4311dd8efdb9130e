"""Which programs are attached to a cgroup or a network namespace, whosever they are (BPF_PROG_QUERY)."""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass

from ztunnel.kernel import bpf

_PROG_GET_FD_BY_ID, _PROG_QUERY = 13, 16
_ALLOW_MULTI = 2
_MOST = 64  # BPF_CGROUP_MAX_PROGS
_QUERY = struct.Struct("=IIIIQII")


@dataclass(frozen=True, slots=True)
class ForeignProgram:
    """What the kernel tells of a program: its number and name, and who loaded it."""

    id: int
    name: str
    uid: int

    def __str__(self) -> str:
        return f"{self.id} ({self.name or 'without a name'}, loaded by uid {self.uid})"


@dataclass(frozen=True, slots=True)
class Attached:
    """The programs of one hook, in the order in which they run. `is_shared`: others may be added."""

    programs: tuple[int, ...]
    is_shared: bool


def attached(target_fd: int, hook: int) -> Attached:
    """What is attached to exactly this cgroup or namespace. Raises OSError."""
    ids = (ctypes.c_uint32 * _MOST)()
    question = _QUERY.pack(target_fd, hook, 0, 0, ctypes.addressof(ids), _MOST, 0)
    attr = ctypes.create_string_buffer(question, bpf.ATTR_BYTES)
    code = bpf.call_in_place(_PROG_QUERY, attr)
    if code:
        raise OSError(code, f"bpf query: {os.strerror(code)}")
    _, _, _, flags, _, count, _ = _QUERY.unpack_from(attr)
    return Attached(tuple(ids[:count]), not count or bool(flags & _ALLOW_MULTI))


def describe(program: int) -> ForeignProgram:
    """What is known of a program; nothing but its number where it has gone meanwhile."""
    try:
        fd = bpf.call(_PROG_GET_FD_BY_ID, struct.pack("=I", program))
    except OSError:
        return ForeignProgram(program, "", 0)
    try:
        known = bpf.info(fd, 80)
    finally:
        bpf.close(fd)
    return ForeignProgram(
        program, known[64:80].rstrip(b"\0").decode(errors="replace"), struct.unpack_from("=I", known, 48)[0]
    )
