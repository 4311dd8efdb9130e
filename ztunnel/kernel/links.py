"""Makes and removes links, addresses and routes of a network namespace. Links are found by their names."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any

from pyroute2.netlink import NLM_F_CREATE, NLM_F_EXCL
from pyroute2.netlink.rtnl import (
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_GETLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
)
from pyroute2.netlink.rtnl.ifaddrmsg import IFA_F_NODAD, ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import IFF_UP, ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from ztunnel.kernel.netlink import Netlink, decoded, encoded
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.topology import Assign, Bridge, Change, Route, Unlink, Unroute, Up, Veth
from ztunnel.model.address import IPNetwork

_NEW = NLM_F_CREATE | NLM_F_EXCL
_MAIN, _BOOT = 254, 3
_UNIVERSE, _LINK, _NOWHERE, _UNICAST = 0, 253, 255, 1  # rt_scope, rt_type
_PLAIN_BRIDGE = [["IFLA_BR_STP_STATE", 0], ["IFLA_BR_FORWARD_DELAY", 0], ["IFLA_BR_MCAST_SNOOPING", 0]]


class NotChanged(Exception):
    """What the kernel refused, and why."""


def change(namespace: NetworkNamespace, changes: Iterable[Change]) -> None:
    """Make these changes in a namespace, in order, until one fails. Raises NotChanged, OSError."""
    with Netlink(namespace) as netlink:
        for each in changes:
            try:
                _carry_out(netlink, each)
            except OSError as error:
                text = f"{type(each).__name__.lower()} {_say(each)}: {os.strerror(error.errno or 0)}"
                raise NotChanged(text) from error


def try_changes(namespace: NetworkNamespace, changes: Iterable[Change]) -> None:
    """As `change`; each may fail, because what it removes is not there. Raises OSError."""
    with Netlink(namespace) as netlink:
        for each in changes:
            with suppress(OSError):
                _carry_out(netlink, each)


def names(namespace: NetworkNamespace) -> list[str]:
    """Of all links. Raises OSError."""
    with Netlink(namespace) as netlink:
        found = [decoded(ifinfmsg(each)) for each in netlink.dump(RTM_GETLINK, encoded(ifinfmsg()))]
    return [each.get_attr("IFLA_IFNAME") for each in found]


def _say(each: Change) -> str:
    return " ".join(str(part) for part in each if part)


def _carry_out(netlink: Netlink, each: Change) -> None:
    match each:
        case Bridge():
            _make(netlink, each.name, "bridge", _PLAIN_BRIDGE, each.hardware)
        case Veth():
            _make_pair(netlink, each)
        case Up():
            _raise_link(netlink, each)
        case Unlink():
            netlink.act(RTM_DELLINK, encoded(_link(_index(netlink, each.name))))
        case Assign():
            netlink.act(RTM_NEWADDR, _address(_index(netlink, each.name), each.address), _NEW)
        case Route():
            netlink.act(RTM_NEWROUTE, _route(netlink, each), _NEW)
        case Unroute():
            netlink.act(RTM_DELROUTE, _unroute(each))


def _link(index: int, *attributes: list[Any]) -> Any:
    link = ifinfmsg()
    link["index"] = index
    link["attrs"] = list(attributes)
    return link


def _index(netlink: Netlink, name: str) -> int:
    (answer,) = netlink.ask(RTM_GETLINK, encoded(_link(0, ["IFLA_IFNAME", name])))
    index: int = decoded(ifinfmsg(answer))["index"]
    return index


def _make(netlink: Netlink, name: str, kind: str, options: list[Any], hardware: str = "") -> None:
    info = [["IFLA_INFO_KIND", kind], ["IFLA_INFO_DATA", {"attrs": options}]]
    link = _link(0, ["IFLA_IFNAME", name], *_hardware(hardware), ["IFLA_LINKINFO", {"attrs": info}])
    netlink.act(RTM_NEWLINK, encoded(link), _NEW)


def _make_pair(netlink: Netlink, pair: Veth) -> None:
    with ExitStack() as stack:
        there = os.open(pair.namespace, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, there)
        peer = [["IFLA_IFNAME", pair.peer], *_hardware(pair.hardware), ["IFLA_NET_NS_FD", there]]
        _make(netlink, pair.name, "veth", [["VETH_INFO_PEER", {"attrs": peer}]])


def _hardware(address: str) -> list[list[str]]:
    return [["IFLA_ADDRESS", address]] if address else []


def _raise_link(netlink: Netlink, up: Up) -> None:
    bridge = [["IFLA_MASTER", _index(netlink, up.bridge)]] if up.bridge else []
    link = _link(_index(netlink, up.name), *bridge)
    link["flags"] = link["change"] = IFF_UP
    netlink.act(RTM_NEWLINK, encoded(link))


def _address(index: int, address: IPv4Interface | IPv6Interface) -> bytes:
    message = ifaddrmsg()
    message["family"] = _family(address)
    message["prefixlen"] = address.network.prefixlen
    message["index"] = index
    message["flags"] = IFA_F_NODAD if address.version == 6 else 0
    message["attrs"] = [["IFA_LOCAL", str(address.ip)], ["IFA_ADDRESS", str(address.ip)]]
    return encoded(message)


def _route(netlink: Netlink, route: Route) -> bytes:
    message = _to(route.to)
    message["proto"], message["type"] = _BOOT, _UNICAST
    message["scope"] = _UNIVERSE if route.via or route.to.version == 6 else _LINK
    if route.name:
        message["attrs"].append(["RTA_OIF", _index(netlink, route.name)])
    if route.via:
        message["attrs"].append(["RTA_GATEWAY", str(route.via)])
    if route.source:
        message["attrs"].append(["RTA_PREFSRC", str(route.source)])
    return encoded(message)


def _unroute(route: Unroute) -> bytes:
    message = _to(route.to)
    message["scope"] = _NOWHERE
    message["attrs"].append(["RTA_GATEWAY", str(route.via)])
    return encoded(message)


def _to(network: IPNetwork) -> Any:
    message = rtmsg()
    message["family"], message["table"], message["dst_len"] = _family(network), _MAIN, network.prefixlen
    message["attrs"] = [["RTA_DST", str(network.network_address)]] if network.prefixlen else []
    return message


def _family(of: IPNetwork | IPv4Interface | IPv6Interface) -> int:
    return socket.AF_INET if of.version == 4 else socket.AF_INET6
