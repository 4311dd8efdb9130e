"""The way back of sockets that show a client's address: a rule and a table in a pod's namespace.

Replies to such a socket go to the client's address, which is not the pod's. By the socket's mark a rule of
ours sends them to a table of ours, whose routes bring them back to the pod:

    ip rule add pref 32764 fwmark 0x111/0xfff lookup 100 proto 90
    ip route add local default dev lo table 100 proto 90
    ip route add local default dev eth0 table 100 proto 90 metric 1026

The last is for servers that listen on an interface (SO_BINDTODEVICE): what they send follows only routes of
that interface. As a local route it leads to lo all the same.

What is ours is known by its protocol, also after a restart. Others' rules and tables are neither shared nor
removed: where they have 100, another number is taken, and where a rule of theirs stands before ours (a
VPN's, say) ours goes before it.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

from pyroute2.netlink import NLM_F_CREATE, NLM_F_EXCL
from pyroute2.netlink.rtnl import (
    RTM_DELROUTE,
    RTM_DELRULE,
    RTM_GETROUTE,
    RTM_GETRULE,
    RTM_NEWROUTE,
    RTM_NEWRULE,
)
from pyroute2.netlink.rtnl.fibmsg import FR_ACT_TO_TBL, fibmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from ztunnel.kernel.netlink import LOOPBACK, Netlink, attributes, body_of, decoded, encoded, message_of
from ztunnel.kernel.netns import NetworkNamespace

MARK, MASK = 0x111, 0xFFF  # istio/ztunnel src/proxy.rs: the mark of sockets that carry a client's address
OWN_PROTOCOL = 90
"""Who made a rule or a route (rtm_protocol, FRA_PROTOCOL); rt_protos names no other user of this number."""

_TABLES = (100, *range(15100, 15120))
_PRIORITY = 32764  # Istio's CNI has its rule there
_LOCAL_TABLE = 255
_HOST, _RTN_LOCAL = 254, 2
_INVERT = 2  # FIB_RULE_INVERT
_RTMSG = struct.Struct("=BBBBBBBBI")
_RTA_OIF, _RTA_TABLE = 4, 15
_METRIC = 1024  # IPv6 gives it to a route without one: that of lo stays the first
_SELECTORS = (
    *("FRA_SRC", "FRA_DST", "FRA_IIFNAME", "FRA_OIFNAME", "FRA_UID_RANGE", "FRA_IP_PROTO"),
    *("FRA_SPORT_RANGE", "FRA_DPORT_RANGE", "FRA_TUN_ID", "FRA_L3MDEV"),
)
BOTH = (socket.AF_INET, socket.AF_INET6)


class WayBlocked(Exception):
    """Something of somebody else's is in the way; the message names it, and what to do."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A routing rule, as far as it matters here. `exact`: it selects by our mark and nothing else;
    `inverted`: what does *not* match follows it."""

    priority: int
    table: int
    protocol: int
    mark: int
    mask: int
    exact: bool = False
    inverted: bool = False

    @property
    def takes_ours(self) -> bool:
        """Whether packets of our mark may follow it."""
        return (self.mark & self.mask == MARK & self.mask) or self.inverted

    @property
    def is_ours(self) -> bool:
        return self.protocol == OWN_PROTOCOL


class Route(NamedTuple):
    """A route, as far as it matters here: who made it, its type (`RTN_LOCAL` is 2), its table, and the index
    of its interface, 0 where it has none or several."""

    protocol: int
    kind: int
    table: int
    interface: int


@dataclass(frozen=True, slots=True)
class Choice:
    """Where our rule is to stand, and the table that it leads to."""

    priority: int
    table: int


def choose(rules: Sequence[Rule], busy: Iterable[int] = ()) -> Choice:
    """A place for our rule among those that are there: the one that it has, where that serves.

    Args:
        busy: tables that hold routes of others.

    Raises:
        WayBlocked: there is none.
    """
    others = [rule for rule in rules if not rule.is_ours]
    taken = {rule.table for rule in others}.union(busy)
    had = [rule.table for rule in rules if rule.is_ours]
    table = next((each for each in (*had, *_TABLES) if each not in taken), None)
    if table is None:
        raise WayBlocked(
            "tables 100 and 15100 to 15119 are all in use by others in the pod: free one of them"
        )
    before = [rule.priority for rule in others if rule.takes_ours and rule.table != _LOCAL_TABLE]
    priority = min([_PRIORITY, *(each - 1 for each in before)])
    if priority < 1:
        raise WayBlocked(
            "a rule of somebody else's stands at priority 0 or 1 in the pod, where ours must go before it: "
            "give it a higher number"
        )
    return Choice(priority, table)


class WayBack:
    """Rule and routes of one namespace."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[frozenset[int], list[bytes]]] = {}
        self._tables: dict[int, int] = {}

    def ensure(
        self, namespace: NetworkNamespace, families: Iterable[int] = BOTH, interfaces: Iterable[int] = ()
    ) -> list[str]:
        """Make what is missing, and move what is in the way of others, or behind them. Some 60 us where all
        is as it was, 1 ms to make it.

        Args:
            families: those that the namespace has; of others nothing is made.
            interfaces: on which servers may listen, by their indexes; one that has no routes, because it is
                down or without IPv6, is left out until it has.

        Returns:
            What had to be made, such as `IPv4 rule`.

        Raises:
            WayBlocked: others are in the way.
            OSError: the kernel refuses: EACCES or EAFNOSUPPORT where IPv6 is off, ENETDOWN where lo is down.
        """
        made: list[str] = []
        wanted = frozenset((LOOPBACK, *interfaces))
        with Netlink(namespace) as netlink:
            for family in families:
                if (wanted, self._look(netlink, family)) == self._seen.get(family):
                    continue
                name = "IPv4" if family == socket.AF_INET else "IPv6"
                settled, lacking = self._settle(netlink, family, wanted)
                made += [f"{name} {what}" for what in settled]
                self._seen[family] = wanted - lacking, self._look(netlink, family)
        return made

    def _look(self, netlink: Netlink, family: int) -> list[bytes]:
        """Rules and our table as the kernel describes them, to be compared."""
        table = self._tables.get(family)
        routes = _routes(netlink, family, table) if table is not None else []
        return list(map(body_of, (*_rules(netlink, family), *routes)))

    def _settle(
        self, netlink: Netlink, family: int, wanted: frozenset[int]
    ) -> tuple[list[str], frozenset[int]]:
        """What was made, and the interfaces that cannot have a route now."""
        rules = list(map(pull_rule, map(body_of, _rules(netlink, family))))
        busy: set[int] = set()
        while True:
            choice = choose(rules, busy)
            routes = _read_routes(netlink, family, choice.table)
            if all(route.protocol == OWN_PROTOCOL for route in routes):
                break
            busy.add(choice.table)
        self._require_mark(netlink, family, rules)
        self._tables[family] = choice.table
        missing = wanted.difference(route.interface for route in routes)
        lacking = frozenset(each for each in missing if not _add_route(netlink, family, choice.table, each))
        made = ["route"] if missing - lacking else []
        ours = [rule for rule in rules if rule.is_ours]
        right = [r for r in ours if r.exact and (r.priority, r.table) == (choice.priority, choice.table)]
        if not right:
            _add(netlink, RTM_NEWRULE, _rule(family, choice.priority, choice.table))
            made.append("rule")
        for rule in ours:
            if rule not in right[:1]:
                _remove(netlink, RTM_DELRULE, _rule(family, rule.priority, rule.table))
                _remove_routes(netlink, family, {rule.table} - {choice.table})
        return made, lacking

    def _require_mark(self, netlink: Netlink, family: int, rules: Sequence[Rule]) -> None:
        """Nobody else means something else by our mark. Istio's rule means the same, and need not be ours."""
        for rule in rules:
            if rule.is_ours or rule.inverted or not rule.mask or not rule.takes_ours:
                continue
            routes = _read_routes(netlink, family, rule.table)
            if not all(route.kind == _RTN_LOCAL for route in routes):
                raise WayBlocked(
                    f"a rule of somebody else's in the pod (priority {rule.priority}, table {rule.table}) "
                    f"is for the mark 0x{rule.mark:x}/0x{rule.mask:x}, and so would be for the mesh's 0x111: "
                    "give it another mark"
                )


def has_istio_rule(namespace: NetworkNamespace) -> bool:
    """Whether the rule of Istio's CNI agent stands there, which looks like ours and is not. Raises
    OSError."""
    with Netlink(namespace) as netlink:
        return any(
            (rule.priority, rule.table, rule.mark, rule.mask) == (_PRIORITY, _TABLES[0], MARK, MASK)
            and not rule.is_ours
            for family in BOTH
            for rule in map(pull_rule, map(body_of, _rules(netlink, family)))
        )


def remove_way_back(namespace: NetworkNamespace, families: Iterable[int] = BOTH) -> None:
    """Remove rules and routes of ours, whoever made them, and nothing else. Raises OSError."""
    with Netlink(namespace) as netlink:
        for family in families:
            for rule in map(pull_rule, map(body_of, _rules(netlink, family))):
                if rule.is_ours:
                    _remove(netlink, RTM_DELRULE, _rule(family, rule.priority, rule.table))
            _remove_routes(netlink, family, None)


def _rules(netlink: Netlink, family: int) -> list[bytes]:
    return netlink.dump(RTM_GETRULE, _all_rules(family))


def _routes(netlink: Netlink, family: int, table: int | None) -> list[bytes]:
    """The routes of a table, or all; none where there is no such table."""
    try:
        return netlink.dump(RTM_GETROUTE, _all_routes(family, table))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return []


@cache
def _all_rules(family: int) -> bytes:
    question = fibmsg()
    question["family"] = family
    return encoded(question)


@cache
def _all_routes(family: int, table: int | None) -> bytes:
    question = rtmsg()
    question["family"] = family
    if table is not None:
        question["attrs"] = [("RTA_TABLE", table)]
    return encoded(question)


def _read_routes(netlink: Netlink, family: int, table: int | None) -> list[Route]:
    return list(map(pull_route, map(body_of, _routes(netlink, family, table))))


# Pods mostly have the same rules and routes, and a library takes 50 us and more to read or write one.


@lru_cache(maxsize=1024)
def pull_rule(body: bytes) -> Rule:
    """A rule of a message without its header."""
    rule = decoded(fibmsg(message_of(RTM_NEWRULE, body)))
    mark = rule.get_attr("FRA_FWMARK") or 0
    return Rule(
        priority=rule.get_attr("FRA_PRIORITY") or 0,
        table=rule.get_attr("FRA_TABLE") or rule["table"],
        protocol=rule.get_attr("FRA_PROTOCOL") or 0,
        mark=mark,
        mask=rule.get_attr("FRA_FWMASK") or 0,
        exact=mark == MARK and not any(rule.get_attr(each) is not None for each in _SELECTORS),
        inverted=bool(rule["flags"] & _INVERT),
    )


def pull_route(body: bytes) -> Route:
    """A route of a message without its header: of these a pod may have many, and no two the same."""
    _, _, _, _, table, protocol, _, kind, _ = _RTMSG.unpack_from(body)
    found = dict(attributes(body, _RTMSG.size))
    whole, interface = (
        int.from_bytes(found.get(number, b""), sys.byteorder) for number in (_RTA_TABLE, _RTA_OIF)
    )
    return Route(protocol, kind, whole or table, interface)


@cache
def _rule(family: int, priority: int, table: int) -> bytes:
    rule = fibmsg()
    rule["family"], rule["action"] = family, FR_ACT_TO_TBL
    rule["attrs"] = [
        ("FRA_PRIORITY", priority),
        ("FRA_FWMARK", MARK),
        ("FRA_FWMASK", MASK),
        ("FRA_TABLE", table),
        ("FRA_PROTOCOL", OWN_PROTOCOL),
    ]
    return encoded(rule)


@cache
def _route(family: int, table: int, interface: int) -> bytes:
    route = rtmsg()
    route["family"], route["proto"] = family, OWN_PROTOCOL
    route["scope"], route["type"] = _HOST, _RTN_LOCAL
    route["attrs"] = [("RTA_TABLE", table), ("RTA_OIF", interface)]
    if interface != LOOPBACK:
        route["attrs"].append(("RTA_PRIORITY", _METRIC + interface))
    return encoded(route)


def _add_route(netlink: Netlink, family: int, table: int, interface: int) -> bool:
    """Whether the interface has it now; it is required of lo alone."""
    try:
        _add(netlink, RTM_NEWROUTE, _route(family, table, interface))
    except OSError:
        if interface == LOOPBACK:
            raise
        return False
    return True


def _add(netlink: Netlink, kind: int, message: bytes) -> None:
    with suppress(FileExistsError):
        netlink.act(kind, message, NLM_F_CREATE | NLM_F_EXCL)


def _remove(netlink: Netlink, kind: int, message: bytes) -> None:
    try:
        netlink.act(kind, message)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESRCH):
            raise


def _remove_routes(netlink: Netlink, family: int, tables: set[int] | None) -> None:
    """Remove our routes in these tables, or in all."""
    for route in _read_routes(netlink, family, None):
        if route.protocol == OWN_PROTOCOL and (tables is None or route.table in tables):
            _remove(netlink, RTM_DELROUTE, _route(family, route.table, route.interface))
