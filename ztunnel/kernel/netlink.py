"""Netlink without a library: addresses of a namespace, and the rule and route that bring replies to spoofed
sources.

The kernel answers a request before `send` returns, so nothing here waits: each question takes well under 1
ms. Layouts are those of include/uapi/linux/{netlink,rtnetlink,if_addr,fib_rules}.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator

from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.model.address import IPAddress, parse_packed

SPOOF_MARK = 0x111  # istio/ztunnel src/proxy.rs: the mark of sockets that carry a client's address
_SPOOF_MASK, _SPOOF_TABLE, _SPOOF_PRIORITY = 0xFFF, 100, 32764  # as Istio's CNI sets them

_ROUTE, _REQUEST, _ACK, _DUMP, _EXCL_CREATE = 0, 1, 4, 0x300, 0x600
_ERROR, _DONE, _INTERRUPTED = 2, 3, 0x10
_NEWADDR, _GETADDR, _NEWROUTE, _DELROUTE, _NEWRULE, _DELRULE = 20, 22, 24, 25, 32, 33
_LOOPBACK = 1  # the index of lo in every namespace
_RECEIVE_BYTES = 1 << 18


def attribute(kind: int, value: bytes) -> bytes:
    """One netlink attribute, padded to 4 bytes."""
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def attributes(payload: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """The attributes (kind without its flags, value) from `offset` on."""
    while offset + 4 <= len(payload):
        size, kind = struct.unpack_from("=HH", payload, offset)
        if size < 4:
            return
        yield kind & 0x3FFF, payload[offset + 4 : offset + size]
        offset += (size + 3) & ~3


class Netlink:
    """A netlink socket in one namespace."""

    def __init__(self, namespace: NetworkNamespace, protocol: int) -> None:
        self._socket = namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def dump(self, kind: int, body: bytes) -> list[tuple[int, bytes]]:
        """Ask for a list: (type, payload) of each answer, asked again where it changed meanwhile."""
        for _ in range(5):
            answers, interrupted = self._exchange(kind, _REQUEST | _DUMP, body)
            if not interrupted:
                break
        return answers

    def ask(self, kind: int, body: bytes) -> list[tuple[int, bytes]]:
        """Ask for one thing. Raises OSError with the kernel's errno, mostly ENOENT."""
        return self._exchange(kind, _REQUEST | _ACK, body)[0]

    def act(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Change something. Raises OSError with the kernel's errno."""
        self._exchange(kind, _REQUEST | _ACK | flags, body)

    def _exchange(self, kind: int, flags: int, body: bytes) -> tuple[list[tuple[int, bytes]], bool]:
        self._sequence += 1
        self._socket.send(struct.pack("=IHHII", 16 + len(body), kind, flags, self._sequence, 0) + body)
        answers: list[tuple[int, bytes]] = []
        interrupted = False
        while True:
            packet = self._socket.recv(_RECEIVE_BYTES)
            offset = 0
            while offset + 16 <= len(packet):
                size, answer, reply_flags, sequence = struct.unpack_from("=IHHI", packet, offset)
                payload = packet[offset + 16 : offset + size]
                offset += (size + 3) & ~3
                if sequence != self._sequence:
                    continue
                interrupted = interrupted or bool(reply_flags & _INTERRUPTED)
                if answer in (_ERROR, _DONE):
                    _raise(payload)
                    return answers, interrupted
                answers.append((answer, payload))


def _raise(payload: bytes) -> None:
    code = -struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
    if code:
        raise OSError(code, f"netlink: {os.strerror(code)}")


def addresses(namespace: NetworkNamespace) -> tuple[IPAddress, ...]:
    """The namespace's addresses of global scope on all interfaces but lo, in the kernel's order. Raises
    OSError."""
    found: list[IPAddress] = []
    with Netlink(namespace, _ROUTE) as netlink:
        for kind, payload in netlink.dump(_GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
            scope, index = struct.unpack_from("=xxxBI", payload)
            if kind != _NEWADDR or scope != 0 or index == _LOOPBACK:
                continue
            carried = dict(attributes(payload, 8))
            found.append(parse_packed(carried.get(2) or carried[1]))  # IFA_LOCAL, else IFA_ADDRESS
    return tuple(dict.fromkeys(found))


def route_marked(
    namespace: NetworkNamespace, families: Iterable[int] = (socket.AF_INET, socket.AF_INET6)
) -> None:
    """Bring replies to sockets of mark 0x111 back to them: they are bound to a client's address, which is not
    ours.

    Adds `ip rule pref 32764 fwmark 0x111/0xfff lookup 100` and `ip route add local default dev lo table 100`,
    unless they are there. Raises OSError.
    """
    for family in families:
        for kind, body in ((_NEWRULE, _rule(family)), (_NEWROUTE, _route(family))):
            _settle(namespace, (kind, _EXCL_CREATE), body, errno.EEXIST)


def unroute_marked(
    namespace: NetworkNamespace, families: Iterable[int] = (socket.AF_INET, socket.AF_INET6)
) -> None:
    """Undo `route_marked`. Raises OSError; what is not there is not missed."""
    for family in families:
        _settle(namespace, (_DELRULE, 0), _rule(family), errno.ENOENT)
        _settle(namespace, (_DELROUTE, 0), _route(family), errno.ESRCH)


def _settle(namespace: NetworkNamespace, request: tuple[int, int], body: bytes, settled: int) -> None:
    with Netlink(namespace, _ROUTE) as netlink:
        try:
            netlink.act(request[0], body, request[1])
        except OSError as error:
            if error.errno != settled:
                raise


def _rule(family: int) -> bytes:
    values = {6: _SPOOF_PRIORITY, 10: SPOOF_MARK, 16: _SPOOF_MASK, 15: _SPOOF_TABLE}  # FRA_*
    head = struct.pack("=BBBBBBBBI", family, 0, 0, 0, _SPOOF_TABLE, 0, 0, 1, 0)  # FR_ACT_TO_TBL
    return head + b"".join(attribute(kind, struct.pack("=I", value)) for kind, value in values.items())


def _route(family: int) -> bytes:
    head = struct.pack("=BBBBBBBBI", family, 0, 0, 0, _SPOOF_TABLE, 4, 254, 2, 0)  # static, host, RTN_LOCAL
    return head + attribute(4, struct.pack("=I", _LOOPBACK)) + attribute(15, struct.pack("=I", _SPOOF_TABLE))
