"""bpf(2), thin: maps, programs, links and pins by file descriptor (include/uapi/linux/bpf.h, Linux 6.1).

A `Map` belongs to one thread: its buffers are allocated once, so that a call costs a system call and little
else. Not to be compiled by mypyc: buffers live here as long as a local name does, and compiled code lets go
of it at its last use, before the kernel has read what the address stands for.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_NUMBER = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}.get(
    platform.machine(), 280
)
ATTR_BYTES = 152
_NAME_BYTES = 15
_LOG_BYTES = 1 << 20
(_MAP_CREATE, _LOOKUP, _UPDATE, _DELETE, _NEXT_KEY, _PROG_LOAD, _PIN, _GET) = range(8)
_INFO_BY_FD, _TAKE, _LINK_CREATE, _LINK_UPDATE, _LINK_DETACH = 15, 21, 28, 29, 34

# PyDLL keeps the GIL: a map call takes less than a microsecond, handing the GIL over takes longer.
_short = ctypes.PyDLL(None, use_errno=True).syscall
_long = ctypes.CDLL(None, use_errno=True).syscall
for _call in (_short, _long):
    _call.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)
    _call.restype = ctypes.c_long

_NF_INET_FORWARD = 2

NOEXIST = 1
EXIST = 2


def call(command: int, attributes: bytes) -> int:
    """bpf(2) with these attributes. Raises OSError."""
    attr = ctypes.create_string_buffer(attributes, ATTR_BYTES)
    result: int = _long(_NUMBER, command, ctypes.addressof(attr), ATTR_BYTES)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"bpf: {os.strerror(code)}")
    return result


def call_in_place(command: int, attr: ctypes.Array[ctypes.c_char]) -> int:
    """bpf(2) with attributes that the kernel writes to; the errno, 0 on success."""
    failed = _long(_NUMBER, command, ctypes.addressof(attr), len(attr)) < 0
    return ctypes.get_errno() if failed else 0


@dataclass(frozen=True, slots=True)
class MapSpec:
    """What a map is made from; two maps with equal specs are interchangeable. `kind` is enum bpf_map_type."""

    kind: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


class Map:
    """A BPF map. Keys and values are bytes of exactly `key_size` and `value_size`; values of a per-CPU map
    are one such value, padded to 8 bytes, for each possible CPU. Takes over `fd`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.spec = map_spec(fd)
        self.key_size, self.value_size = self.spec.key_size, self.spec.value_size
        if self.spec.kind in (5, 6, 10):  # PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH
            self.value_size = (self.value_size + 7) // 8 * 8 * possible_cpus()
        self._key = bytearray(max(self.key_size, 1))
        self._value = bytearray(max(self.value_size, 1))
        self._next = bytearray(max(self.key_size, 1))
        key, value, following = (_address(buffer) for buffer in (self._key, self._value, self._next))
        self._attr = ctypes.create_string_buffer(struct.pack("=IIQQQ", fd, 0, key, value, 0), ATTR_BYTES)
        self._next_attr = ctypes.create_string_buffer(
            struct.pack("=IIQQQ", fd, 0, key, following, 0), ATTR_BYTES
        )
        self._drop_attr = ctypes.create_string_buffer(struct.pack("=IIQ", fd, 0, key), ATTR_BYTES)
        self._at, self._drop_at = ctypes.addressof(self._attr), ctypes.addressof(self._drop_attr)
        self._flags = ctypes.c_uint64.from_address(self._at + 24)

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        self._key[:] = key
        if _short(_NUMBER, _LOOKUP, self._at, 32) == 0:
            return bytes(self._value)
        self._require_absence()
        return None

    def take(self, key: bytes) -> bytes | None:
        """The value, removed in the same system call, or None. Hash maps only (arrays: EOPNOTSUPP)."""
        self._key[:] = key
        if _short(_NUMBER, _TAKE, self._at, 32) == 0:
            return bytes(self._value)
        self._require_absence()
        return None

    def put(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set the value. Raises OSError: E2BIG or ENOMEM when full, EEXIST with NOEXIST, ENOENT with
        EXIST."""
        self._key[:] = key
        self._value[: len(value)] = value  # a sockhash of u64 takes 8 bytes, whatever else is asked of it
        if flags:
            self._flags.value = flags
        failed = _short(_NUMBER, _UPDATE, self._at, 32)
        if flags:
            self._flags.value = 0
        if failed:
            raise _error("update")

    def drop(self, key: bytes) -> bool:
        """Remove the entry; whether there was one."""
        self._key[:] = key
        if _short(_NUMBER, _DELETE, self._drop_at, 32) == 0:
            return True
        self._require_absence()
        return False

    def __iter__(self) -> Iterator[bytes]:
        """All keys as they are now. A map that others write to meanwhile may repeat or miss some."""
        attr = ctypes.addressof(self._next_attr)
        found: list[bytes] = []
        first = struct.pack("=IIQQ", self.fd, 0, 0, _address(self._next))
        start = ctypes.create_string_buffer(first, ATTR_BYTES)
        failed = _short(_NUMBER, _NEXT_KEY, ctypes.addressof(start), 32)
        while not failed and len(found) <= self.spec.max_entries:
            key = bytes(self._next)
            found.append(key)
            self._key[:] = key
            failed = _short(_NUMBER, _NEXT_KEY, attr, 32)
        return iter(found)

    def close(self) -> None:
        """Let go of the map; pins and programs keep it."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def __enter__(self) -> Map:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _require_absence(self) -> None:
        if ctypes.get_errno() != errno.ENOENT:
            raise _error("map")


def _address(buffer: bytearray) -> int:
    return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))


def _error(what: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"bpf {what}: {os.strerror(code)}")


@cache
def possible_cpus(listing: str = "/sys/devices/system/cpu/possible") -> int:
    """How many values a per-CPU map has; read once, for when no descriptor is left."""
    last = Path(listing).read_text().strip().split(",")[-1].split("-")[-1]
    return int(last) + 1


def _name(name: str) -> bytes:
    return name.encode()[:_NAME_BYTES]


def map_create(name: str, spec: MapSpec) -> int:
    """A new map's descriptor."""
    sizes = (spec.kind, spec.key_size, spec.value_size, spec.max_entries, spec.flags)
    return call(_MAP_CREATE, struct.pack("=IIIII II 16s", *sizes, 0, 0, _name(name)))


def map_spec(fd: int) -> MapSpec:
    """What the map was made from (BPF_OBJ_GET_INFO_BY_FD)."""
    kind, _, key, value, entries, flags = struct.unpack("=IIIIII", info(fd, 24))
    return MapSpec(kind, key, value, entries, flags)


@dataclass(frozen=True, slots=True)
class Program:
    """What a program is loaded from: `kind` is enum bpf_prog_type, `hook` enum bpf_attach_type.
    `instructions` has its map descriptors in place."""

    name: str
    kind: int
    hook: int
    instructions: bytes


def prog_load(program: Program) -> int:
    """Load a program through the verifier.

    Raises:
        OSError: refused; the end of the verifier's log is in the message.
    """
    code = ctypes.create_string_buffer(program.instructions, len(program.instructions))
    log, licence = ctypes.create_string_buffer(_LOG_BYTES), ctypes.create_string_buffer(b"GPL")
    head = (program.kind, len(program.instructions) // 8, ctypes.addressof(code), ctypes.addressof(licence))

    def attempt(level: int, log_bytes: int, log_at: int) -> int:
        middle = (level, log_bytes, log_at, 0, 0, _name(program.name), 0, program.hook)
        return call(_PROG_LOAD, struct.pack("=IIQQ IIQ II16sII", *head, *middle))

    try:
        return attempt(0, 0, 0)
    except OSError as first:
        try:
            return attempt(1, _LOG_BYTES, ctypes.addressof(log))
        except OSError:
            text = log.value.decode(errors="replace")
            raise OSError(first.errno, f"{program.name}: {first.strerror}\n{text[-6000:]}") from first


def verified_instructions(fd: int) -> int:
    """How many instructions the verifier walked through for this program."""
    return int(struct.unpack_from("=I", info(fd, 232), 216)[0])


def object_id(fd: int) -> int:
    """The kernel's number of a map, program or link, among its kind."""
    return int(struct.unpack_from("=II", info(fd, 8))[1])


def link_create(program_fd: int, target_fd: int, hook: int) -> int:
    """Attach a program to a cgroup or network namespace; the link's descriptor (unpinned, it detaches at
    close)."""
    return call(_LINK_CREATE, struct.pack("=IIII", program_fd, target_fd, hook, 0))


def link_create_here(program_fd: int, hook: int, family: int, priority: int) -> int:
    """Attach a netfilter program at FORWARD of the calling thread's network namespace; the link's
    descriptor. Raises OSError: EBUSY where another program has this priority."""
    attributes = struct.pack("=IIIIIIiI", program_fd, 0, hook, 0, family, _NF_INET_FORWARD, priority, 0)
    return call(_LINK_CREATE, attributes)


def link_update(link_fd: int, program_fd: int) -> None:
    """Replace a link's program in one step: no connection passes in between."""
    call(_LINK_UPDATE, struct.pack("=IIII", link_fd, program_fd, 0, 0))


def link_detach(link_fd: int) -> None:
    """Detach a link now, whoever else holds it."""
    call(_LINK_DETACH, struct.pack("=I", link_fd))


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """`id` stays while the link lives; `program` changes with `link_update`; `target` is a cgroup id or the
    inode of a network namespace (0: that namespace is gone)."""

    id: int
    program: int
    target: int
    hook: int


def link_info(fd: int) -> LinkInfo:
    """Look a link up (struct bpf_link_info: cgroup, type 3; netns, type 5)."""
    kind, number, program, _, first, second, third = struct.unpack("=IIII III", info(fd, 28))
    if kind == 3:
        return LinkInfo(number, program, first | second << 32, third)
    return LinkInfo(number, program, first, second)


def info(fd: int, size: int) -> bytes:
    """The first `size` bytes of what the kernel tells of a map, program or link."""
    buffer = ctypes.create_string_buffer(size)
    call(_INFO_BY_FD, struct.pack("=IIQ", fd, size, ctypes.addressof(buffer)))
    return buffer.raw


def pin(fd: int, path: Path) -> None:
    """Pin a map, program or link in a bpffs; the file gets mode 0600."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    call(_PIN, struct.pack("=QI", ctypes.addressof(name), fd))


def open_pinned(path: Path) -> int:
    """The descriptor of what is pinned at `path`. Raises FileNotFoundError and other OSErrors."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    try:
        return call(_GET, struct.pack("=QI", ctypes.addressof(name), 0))
    except OSError as error:
        raise OSError(error.errno, f"{path}: {error.strerror}") from error


def close(fd: int) -> None:
    """Let go of a program's or link's descriptor; an unpinned link detaches."""
    os.close(fd)


def remove_link(place: Path) -> None:
    """Detach the link that is pinned at `place` and remove the pin; nothing happens where there is none."""
    try:
        fd = open_pinned(place)
    except FileNotFoundError:
        return
    try:
        link_detach(fd)
    finally:
        os.close(fd)
        place.unlink(missing_ok=True)


def set_pinned(fd: int, place: Path) -> None:
    """Pin at `place`, in place of what is pinned there, in one step."""
    beside = place.with_name(f"+{place.name}")
    beside.unlink(missing_ok=True)
    pin(fd, beside)
    beside.rename(place)


def duplicate(fd: int) -> int:
    """Another descriptor of the same object."""
    return os.dup(fd)


def target_id(fd: int) -> int:
    """The inode number of an open cgroup or namespace: what `LinkInfo.target` shows."""
    return os.fstat(fd).st_ino
