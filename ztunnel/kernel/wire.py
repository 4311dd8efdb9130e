"""Delivers packets to a pod as if they had come over its wire: by the other end of its veth, which is ours.

A raw socket inside the pod would not do: what it sends does not come in by the pod's interface, which its
translation of addresses and its routes may ask for.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

from pyroute2.netlink.rtnl import RTM_GETLINK, RTM_GETNSID
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.nsidmsg import nsidmsg

from ztunnel.kernel.netlink import Netlink, decoded, encoded
from ztunnel.kernel.netns import NetworkNamespace, current

_REMEMBERED = 1024
_ETHERNET = {4: 0x0800, 6: 0x86DD}


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
        number = near and near.get_attr("IFLA_LINK")
        far = number and _link(here, number)
        if not far or far.get_attr("IFLA_LINK") != interface:
            return None
        if far.get_attr("IFLA_LINK_NETNSID") != _number_of(here, pod):
            return None
        hardware = bytes.fromhex(near.get_attr("IFLA_ADDRESS").replace(":", ""))
        return _Far(far.get_attr("IFLA_IFNAME"), hardware)


def _link(netlink: Netlink, index: int) -> Any:
    """A link as pyroute2 has it; None where there is none. Raises OSError for other reasons."""
    question = ifinfmsg()
    question["index"] = index
    try:
        (answer,) = netlink.ask(RTM_GETLINK, encoded(question))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    return decoded(ifinfmsg(answer))


def _number_of(netlink: Netlink, namespace: NetworkNamespace) -> int | None:
    """By which links of one namespace name the other."""
    question = nsidmsg()
    question["attrs"] = [["NETNSA_FD", namespace.fileno()]]
    (answer,) = netlink.ask(RTM_GETNSID, encoded(question))
    number: int | None = decoded(nsidmsg(answer)).get_attr("NETNSA_NSID")
    return number
