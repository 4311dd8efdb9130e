"""A load balancer as others have one: a program on connect4 or connect6 that changes where a call goes."""

from __future__ import annotations

import struct
from contextlib import ExitStack

from ztunnel.kernel import bpf
from ztunnel.kernel.bpf import Program
from ztunnel.model.address import Endpoint

_SOCK_ADDR, _CONNECT = 18, {4: 10, 6: 11}
_IP_AT, _PORT_AT = {4: 4, 6: 8}, 24  # struct bpf_sock_addr
_LOAD, _STORE, _SET, _NOT_EQUAL, _RETURN = 0x61, 0x63, 0xB4, 0x56, 0x95


def _instruction(code: int, to: int = 0, of: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhI", code, to | of << 4, offset, value)


def _words(ip: bytes) -> list[int]:
    return [word for (word,) in struct.iter_unpack("=I", ip)]


def _port(port: int) -> int:
    return struct.unpack("=H", struct.pack("!H", port))[0]


def balancer(vip: Endpoint | None, backend: Endpoint) -> bytes:
    """Calls of `vip` go to `backend`; None: every call does."""
    at = _IP_AT[backend.ip.version]
    change = b""
    for number, word in enumerate(_words(backend.ip.packed)):
        change += _instruction(_SET, to=2, value=word)
        change += _instruction(_STORE, to=1, of=2, offset=at + 4 * number)
    change += _instruction(_SET, to=2, value=_port(backend.port))
    change += _instruction(_STORE, to=1, of=2, offset=_PORT_AT)
    checks: list[tuple[int, int]] = []
    if vip is not None:
        checks = [(at + 4 * number, word) for number, word in enumerate(_words(vip.ip.packed))]
        checks.append((_PORT_AT, _port(vip.port)))
    found = b""
    for number, (offset, value) in enumerate(checks):
        left = 2 * (len(checks) - number - 1) + len(change) // 8
        found += _instruction(_LOAD, to=2, of=1, offset=offset)
        found += _instruction(_NOT_EQUAL, to=2, offset=left, value=value)
    return found + change + _instruction(_SET, value=1) + _instruction(_RETURN)


def rewrite(
    stack: ExitStack, cgroup_fd: int, vip: Endpoint | None, backend: Endpoint, name: str = "cil_sock_connec"
) -> int:
    """It is attached there, beside others, until the stack is closed; its number."""
    hook = _CONNECT[backend.ip.version]
    fd = bpf.prog_load(Program(name, _SOCK_ADDR, hook, balancer(vip, backend)))
    stack.callback(bpf.close, fd)
    stack.callback(bpf.close, bpf.link_create(fd, cgroup_fd, hook))
    return bpf.object_id(fd)
