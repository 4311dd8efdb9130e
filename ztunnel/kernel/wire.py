"""Delivers packets to a pod as if they had come over its wire: by the other end of its veth, which is ours.

A raw socket inside the pod would not do: what it sends does not come in by the pod's interface, which its
translation of addresses and its routes may ask for.

Links are asked for by hand (include/uapi/linux/if_link.h, net_namespace.h): pyroute2's message of a link
comes with one for each kind of device, a megabyte of every proxy.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

from pyroute2.netlink.rtnl import RTM_GETLINK, RTM_GETNSID

from ztunnel.kernel.netlink import Netlink, attributes, body_of
from ztunnel.kernel.netns import NetworkNamespace, current

_REMEMBERED = 1024
_ETHERNET = {4: 0x0800, 6: 0x86DD}
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_NAMESPACE = struct.Struct("=B3xHHi")  # struct rtgenmsg, and one attribute
_NUMBER = struct.Struct("=i")
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_LINK, _IFLA_LINK_NETNSID = 1, 3, 5, 37
_NETNSA_NSID, _NETNSA_FD = 1, 3


class _Far(NamedTuple):
    """The other end, by its name here, and the hardware address of the pod's."""

    name: str
    hardware: bytes


class Wires:
    """Of the pods of this node."""

    def __init__(self, home: Callable[[], NetworkNamespace] = current) -> None:
        """`home` opens the namespace in which the other ends are."""
        self._home = home
        self._socket: socket.socket | None = None
        self._known: dict[tuple[int, int], _Far | None] = {}

    def send(self, pod: NetworkNamespace, interface: int, packet: bytes) -> bool:
        """A packet with its IP header and checksums arrives at this interface of the pod; False where that
        has no other end here (macvlan, a device of its own). Raises OSError."""
        far = self._far(pod, interface)
        if far is None:
            return False
        if self._socket is None:
            with self._home() as home:
                self._socket = home.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
        try:
            self._socket.sendto(packet, (far.name, _ETHERNET[packet[0] >> 4], 0, 0, far.hardware))
        except OSError:
            self._known.clear()  # it may have got another name
            raise
        return True

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def _far(self, pod: NetworkNamespace, interface: int) -> _Far | None:
        key = pod.cookie, interface
        if key not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            with self._home() as home:
                self._known[key] = _find(home, pod, interface)
        return self._known[key]


def _find(home: NetworkNamespace, pod: NetworkNamespace, interface: int) -> _Far | None:
    """Each end says the number of the other; both have to, because a number alone may be anybody's."""
    with Netlink(pod) as there, Netlink(home) as here:
        near = _link(there, interface)
        far = _link(here, near.other) if near and near.other else None
        if near is None or far is None or far.other != interface:
            return None
        if far.namespace != _number_of(here, pod):
            return None
        return _Far(far.name, near.hardware)


class _Link(NamedTuple):
    """A link as the kernel tells of it: `other` is the number of its other end, 0 where it has none, in the
    namespace of this number (None: in its own)."""

    name: str
    hardware: bytes
    other: int
    namespace: int | None


def _link(netlink: Netlink, index: int) -> _Link | None:
    """None where there is none. Raises OSError for other reasons."""
    try:
        (answer,) = netlink.ask(RTM_GETLINK, _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    found = dict(attributes(body_of(answer), _LINK.size))
    return _Link(
        os.fsdecode(found[_IFLA_IFNAME].rstrip(b"\0")),
        found.get(_IFLA_ADDRESS, b""),
        _number(found, _IFLA_LINK) or 0,
        _number(found, _IFLA_LINK_NETNSID),
    )


def _number_of(netlink: Netlink, namespace: NetworkNamespace) -> int | None:
    """By which links of one namespace name the other."""
    (answer,) = netlink.ask(RTM_GETNSID, _NAMESPACE.pack(socket.AF_UNSPEC, 8, _NETNSA_FD, namespace.fileno()))
    return _number(dict(attributes(body_of(answer), 4)), _NETNSA_NSID)


def _number(found: dict[int, bytes], kind: int) -> int | None:
    return _NUMBER.unpack(found[kind])[0] if kind in found else None
