"""Netlink: a socket in a pod's namespace, pyroute2's messages on it, and the namespace's addresses.

The kernel answers a request before `send` returns, so nothing here waits. pyroute2's own sockets run an
asyncio loop and take 1.4 ms each to open; its message classes on a socket of ours take 25 to 100 us a
message, and work in any namespace.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Any, NamedTuple, Protocol

from pyroute2.netlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    nlmsg,
)
from pyroute2.netlink.rtnl import (
    RTM_GETADDR,
    RTM_NEWADDR,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_IPV6_RULE,
)
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.model.address import IPAddress, parse_ip

LOOPBACK = 1
"""The index of lo in every namespace."""

_SOL_NETLINK, _GET_STRICT_CHK = 270, 12
_HEADER = struct.Struct("=IHHII")
_HEADER_BYTES = _HEADER.size
_RECEIVE_BYTES = 1 << 18
_EVENTS_AT_ONCE = 64
_WATCHED = (
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV6_RULE,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_ROUTE,
)
_UNIVERSE, _LINK = 0, 253
_ALL_ADDRESSES = bytes(8)  # struct ifaddrmsg


def attributes(payload: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """The attributes (kind without its flags, value) from `offset` on: for what is read by the ten thousand,
    where a library's object for each would take too long."""
    while offset + 4 <= len(payload):
        size, kind = struct.unpack_from("=HH", payload, offset)
        if size < 4:
            return
        yield kind & 0x3FFF, payload[offset + 4 : offset + size]
        offset += (size + 3) & ~3


class Place(Protocol):
    """Where sockets are made: a `NetworkNamespace`, or where the calling thread is."""

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket: ...


class Netlink:
    """A netlink socket in one namespace."""

    def __init__(self, namespace: Place, protocol: int = socket.NETLINK_ROUTE) -> None:
        """Raises OSError."""
        self._socket = namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        # A list is filtered by the kernel, by what the question says.
        with suppress(OSError):  # Linux before 4.20
            self._socket.setsockopt(_SOL_NETLINK, _GET_STRICT_CHK, 1)
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Ask for a list: whole messages, asked again where it changed meanwhile. Raises OSError."""
        for _ in range(5):
            answers, interrupted = self._exchange(kind, NLM_F_REQUEST | NLM_F_DUMP, body)
            if not interrupted:
                break
        return answers

    def ask(self, kind: int, body: bytes) -> list[bytes]:
        """Ask for one thing: whole messages. Raises OSError with the kernel's errno, mostly ENOENT."""
        return self._exchange(kind, NLM_F_REQUEST | NLM_F_ACK, body)[0]

    def act(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Change something. Raises OSError with the kernel's errno."""
        self._exchange(kind, NLM_F_REQUEST | NLM_F_ACK | flags, body)

    def parts(self, kind: int, body: bytes) -> Iterator[list[bytes]]:
        """As `dump`, some at a time: the kernel goes on when the next are asked for, and so each is of
        another moment. Raises OSError."""
        self._send(kind, NLM_F_REQUEST | NLM_F_DUMP, body)
        for answers, _ in self._packets():
            yield answers

    def _exchange(self, kind: int, flags: int, body: bytes) -> tuple[list[bytes], bool]:
        self._send(kind, flags, body)
        found: list[bytes] = []
        is_interrupted = False
        for answers, interrupted in self._packets():
            found += answers
            is_interrupted = is_interrupted or interrupted
        return found, is_interrupted

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        self._socket.send(_HEADER.pack(_HEADER_BYTES + len(body), kind, flags, self._sequence, 0) + body)

    def _packets(self) -> Iterator[tuple[list[bytes], bool]]:
        """The messages of each, and whether what they list has changed meanwhile."""
        is_over = False
        while not is_over:
            packet = self._socket.recv(_RECEIVE_BYTES)
            answers: list[bytes] = []
            offset, interrupted = 0, False
            while not is_over and offset + _HEADER_BYTES <= len(packet):
                size, answer, reply_flags, sequence, _ = _HEADER.unpack_from(packet, offset)
                message = packet[offset : offset + size]
                offset += (size + 3) & ~3
                if sequence != self._sequence:
                    continue
                interrupted = interrupted or bool(reply_flags & NLM_F_DUMP_INTR)
                if answer in (NLMSG_ERROR, NLMSG_DONE):
                    _raise(message)
                    is_over = True
                else:
                    answers.append(message)
            yield answers, interrupted


def body_of(message: bytes) -> bytes:
    """A message without its header, whose sequence number is never the same."""
    return message[_HEADER_BYTES:]


def message_of(kind: int, body: bytes) -> bytes:
    """The opposite, with a header that says no more than it has to."""
    return _HEADER.pack(_HEADER_BYTES + len(body), kind, 0, 0, 0) + body


def decoded(message: nlmsg) -> Any:
    """The same message, after it was decoded: fields by key, attributes by `get_attr`."""
    message.decode()
    return message


def encoded(message: nlmsg) -> bytes:
    """What a message asks or says, as the methods of `Netlink` take it."""
    message.encode()
    return bytes(message.data[_HEADER_BYTES:])


def _raise(message: bytes) -> None:
    code = -struct.unpack_from("=i", message, _HEADER_BYTES)[0] if len(message) >= _HEADER_BYTES + 4 else 0
    if code:
        raise OSError(code, f"netlink: {os.strerror(code)}")


class Address(NamedTuple):
    """An address, the interface that has it, and its scope (rt_scope: 0 is everywhere, 253 the link)."""

    ip: IPAddress
    interface: int
    scope: int


class Addresses(NamedTuple):
    """All addresses of a namespace, in the kernel's order, as one look has found them."""

    all: tuple[Address, ...] = ()

    @property
    def everywhere(self) -> tuple[IPAddress, ...]:
        """Those of global scope on all interfaces but lo."""
        found = (each.ip for each in self.all if each.scope == _UNIVERSE and each.interface != LOOPBACK)
        return tuple(dict.fromkeys(found))

    @property
    def link_local(self) -> tuple[tuple[IPv6Address, int], ...]:
        """The link-local ones of IPv6, each with the index of its interface."""
        return tuple(
            (each.ip, each.interface)
            for each in self.all
            if each.scope == _LINK and isinstance(each.ip, IPv6Address)
        )

    def interfaces(self, of: Collection[IPAddress]) -> tuple[int, ...]:
        """The indices of the interfaces that have one of these addresses."""
        return tuple(dict.fromkeys(each.interface for each in self.all if each.ip in of))


def look_up(namespace: NetworkNamespace) -> Addresses:
    """The namespace's addresses now; some 30 us. Raises OSError."""
    with Netlink(namespace) as netlink:
        return Addresses(
            tuple(_pull_address(body_of(each)) for each in netlink.dump(RTM_GETADDR, _ALL_ADDRESSES))
        )


def addresses(namespace: NetworkNamespace) -> tuple[IPAddress, ...]:
    """Those that `Addresses.everywhere` names. Raises OSError."""
    return look_up(namespace).everywhere


@lru_cache(maxsize=4096)
def _pull_address(body: bytes) -> Address:
    """They are asked for again and again, and mostly say the same."""
    address = decoded(ifaddrmsg(message_of(RTM_NEWADDR, body)))
    ip = parse_ip(address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS"))
    return Address(ip, address["index"], address["scope"])


class NamespaceEvents:
    """Tells that addresses, rules or routes of a namespace have changed. Not what: whoever wants to know
    looks, and so a flood of events costs no more than a look."""

    def __init__(self, namespace: NetworkNamespace) -> None:
        """Raises OSError."""
        self._socket = namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            self._socket.bind((0, sum(1 << (group - 1) for group in _WATCHED)))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Readable when something has changed."""
        return self._socket.fileno()

    def drain(self) -> bool:
        """Take what has come, up to a limit; whether there was any. Never waits, never raises."""
        changed = False
        for _ in range(_EVENTS_AT_ONCE):
            try:
                self._socket.recv(1)  # the rest of the message is dropped
            except OSError as error:
                # ENOBUFS: there were more than fit.
                return changed or error.errno == errno.ENOBUFS
            changed = True
        return changed

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
