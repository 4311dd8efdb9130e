"""Where the running kernel keeps a member of one of its structs, by its own description (BTF,
Documentation/bpf/btf.rst)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

RUNNING_KERNEL = Path("/sys/kernel/btf/vmlinux")
_MAGIC, _STRUCT = 0xEB9F, 4
_HEAD = struct.Struct("=HBBIIIII")  # struct btf_header
_TYPE = struct.Struct("=III")  # struct btf_type, struct btf_member


def sock_offsets(place: Path = RUNNING_KERNEL) -> tuple[int, int] | None:
    """Where `struct sock` has `sk_err` and `sk_flags`, in bytes; None where the kernel does not say.

    The flags stand in a union without a name, right behind the cookie (include/net/sock.h, `struct
    sock_common`, with which every sock begins).
    """
    try:
        blob = place.read_bytes()
        error = offsets_of(blob, "sock", ("__sk_common", "sk_err"))
        cookie = offsets_of(blob, "sock_common", ("skc_cookie",))
    except (OSError, ValueError, struct.error):
        return None
    return (error[1], error[0] + cookie[0] + 8) if error and cookie else None


def multipath_offset(place: Path = RUNNING_KERNEL) -> int | None:
    """Where `struct tcp_sock` has `is_mptcp`, in bytes; None where the kernel does not say, or has no
    multipath TCP."""
    try:
        found = offsets_of(place.read_bytes(), "tcp_sock", ("is_mptcp",))
    except (OSError, ValueError, struct.error):
        return None
    return found[0] if found else None


def offsets_of(blob: bytes, name: str, members: Sequence[str]) -> list[int] | None:
    """Where a struct has these members, in bytes; None if no struct of that name has them all. Bit fields are
    none. Raises ValueError or struct.error on what is no BTF."""
    magic, _, _, head, types_at, types_bytes, strings_at, strings_bytes = _HEAD.unpack_from(blob)
    if magic != _MAGIC:
        raise ValueError("not BTF of this machine's byte order")
    types = blob[head + types_at : head + types_at + types_bytes]
    strings = blob[head + strings_at : head + strings_at + strings_bytes]
    named = strings.find(b"\0" + name.encode() + b"\0") + 1
    for at in _aligned(types, struct.pack("=I", named)) if named else ():
        _, description, _ = _TYPE.unpack_from(types, at)
        if description >> 24 & 0x1F == _STRUCT:
            # What looks like a type may be the middle of one: then it has no such members.
            found = dict(_members(types, strings, at, description))
            if all(member in found for member in members):
                return [found[member] for member in members]
    return None


def _aligned(types: bytes, pattern: bytes) -> Iterator[int]:
    """Where a type may begin that has this name: every type takes a multiple of four bytes."""
    at = types.find(pattern)
    while at >= 0:
        if at % 4 == 0 and at + _TYPE.size <= len(types):
            yield at
        at = types.find(pattern, at + 1)


def _members(types: bytes, strings: bytes, at: int, description: int) -> Iterator[tuple[str, int]]:
    """Nothing where this cannot be a struct: a name that lies outside, or an offset beyond its size."""
    has_bit_fields = description >> 31
    size = struct.unpack_from("=I", types, at + 8)[0]
    for number in range(description & 0xFFFF):
        start = at + _TYPE.size * (number + 1)
        if start + _TYPE.size > len(types):
            return
        name_at, _, offset = _TYPE.unpack_from(types, start)
        bits = offset >> 24 if has_bit_fields else 0
        offset = (offset & 0xFFFFFF if has_bit_fields else offset) // 8
        if name_at >= len(strings) or offset > size:
            return
        if name_at and not bits:
            yield strings[name_at : strings.index(b"\0", name_at)].decode(errors="replace"), offset
