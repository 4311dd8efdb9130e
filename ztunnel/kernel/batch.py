"""Many entries of a BPF hash in one system call (since Linux 5.6)."""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Sequence

from ztunnel.kernel.bpf import ATTR_BYTES, Map, call, call_in_place

_LOOKUP, _UPDATE, _DELETE = 24, 26, 27
_MOST = 4096
_ATTR = struct.Struct("=QQQQIIQQ")  # union bpf_attr, batch: places, keys, values, count, map, flags


def put_all(hashed: Map, keys: Sequence[bytes], value: bytes) -> None:
    """Set the value of all these keys. Raises OSError as `Map.put`; some may be set then."""
    values = ctypes.create_string_buffer(value * min(len(keys), _MOST))
    for start in range(0, len(keys), _MOST):
        some = keys[start : start + _MOST]
        packed = ctypes.create_string_buffer(b"".join(some))
        at = ctypes.addressof(packed), ctypes.addressof(values)
        call(_UPDATE, _ATTR.pack(0, 0, *at, len(some), hashed.fd, 0, 0))


def items(hashed: Map) -> list[tuple[bytes, bytes]]:
    """All entries as they are now; of a hash that others write to, some may be missed. Raises OSError."""
    key_size, value_size = hashed.key_size, hashed.value_size
    keys, values = (ctypes.create_string_buffer(size * _MOST) for size in (key_size, value_size))
    place, attr = ctypes.create_string_buffer(8), ctypes.create_string_buffer(ATTR_BYTES)
    here, start, more = ctypes.addressof(place), 0, True
    found: list[tuple[bytes, bytes]] = []
    while more:
        at = ctypes.addressof(keys), ctypes.addressof(values)
        _ATTR.pack_into(attr, 0, start, here, *at, _MOST, hashed.fd, 0, 0)
        code = call_in_place(_LOOKUP, attr)
        if code not in (0, errno.ENOENT):
            raise OSError(code, "bpf: a hash cannot be listed")
        more, start = code == 0, here
        raw_keys, raw_values = keys.raw, values.raw
        for number in range(struct.unpack_from("=I", attr, 32)[0]):
            value_at, key_at = number * value_size, number * key_size
            found.append((raw_keys[key_at : key_at + key_size], raw_values[value_at : value_at + value_size]))
    return found


def clear(hashed: Map) -> None:
    """Remove all entries. Raises OSError."""
    keys = [key for key, _ in items(hashed)]
    for start in range(0, len(keys), _MOST):
        some = keys[start : start + _MOST]
        packed = ctypes.create_string_buffer(b"".join(some))
        try:
            call(_DELETE, _ATTR.pack(0, 0, ctypes.addressof(packed), 0, len(some), hashed.fd, 0, 0))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            for key in some:  # somebody else removed one meanwhile
                hashed.drop(key)
