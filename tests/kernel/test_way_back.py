"""Rule and route of sockets that show a client's address, beside whatever else stands in a pod."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest
from pyroute2.netlink.rtnl import RTM_GETROUTE
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from tests.kernel.lab import Lab, shell
from ztunnel.kernel.netlink import Netlink, body_of, decoded, encoded
from ztunnel.kernel.way_back import (
    Choice,
    Route,
    Rule,
    WayBack,
    WayBlocked,
    choose,
    pull_route,
    remove_way_back,
)

RULES = "ip -4 rule; ip -6 rule"
ROUTES = "ip -4 route show table all; ip -6 route show table all"
OURS = Rule(32764, 100, 90, 0x111, 0xFFF, exact=True)
MAIN = Rule(32766, 254, 2, 0, 0)
LOCAL = Rule(0, 255, 2, 0, 0)


@pytest.mark.parametrize(
    ("others", "busy", "expected"),
    [
        ([], (), Choice(32764, 100)),
        ([OURS], (), Choice(32764, 100)),
        ([Rule(32764, 100, 0, 0x111, 0xFFF)], (), Choice(32763, 15100)),
        ([Rule(100, 200, 3, 0, 0)], (), Choice(99, 100)),
        ([Rule(100, 200, 3, 0x5, 0xFFF)], (), Choice(32764, 100)),
        ([Rule(100, 200, 3, 0x5, 0xFFF, inverted=True)], (), Choice(99, 100)),
        ([Rule(32765, 200, 3, 0, 0)], (), Choice(32764, 100)),
        ([Rule(9, 100, 3, 0x5, 0xF)], (100, 15100), Choice(32764, 15101)),
        ([Rule(5, 15103, 90, 0x111, 0xFFF)], (), Choice(32764, 15103)),
        ([Rule(1, 255, 3, 0, 0)], (), Choice(32764, 100)),
    ],
)
def test_a_place_is_chosen_that_nobody_has(others, busy, expected) -> None:
    assert choose([LOCAL, *others, MAIN], busy) == expected


def test_where_there_is_no_place_the_reason_says_what_to_do() -> None:
    with pytest.raises(WayBlocked, match="give it a higher number"):
        choose([LOCAL, Rule(1, 200, 3, 0, 0), MAIN])
    with pytest.raises(WayBlocked, match="free one"):
        choose([LOCAL, MAIN], (100, *range(15100, 15120)))


@pytest.fixture
def name(lab: Lab) -> Iterator[str]:
    """The namespace of pod `a`, without anything of these tests afterwards."""
    before = shell(lab.names["a"], RULES), shell(lab.names["a"], ROUTES)
    yield lab.names["a"]
    remove_way_back(lab.a)
    assert (shell(lab.names["a"], RULES), shell(lab.names["a"], ROUTES)) == before


def shown(name: str) -> list[tuple[str, str]]:
    """Priority and table of each rule of our mark, IPv4 first."""
    return re.findall(r"(\d+):\tfrom all fwmark 0x111/0xfff lookup (\d+) proto 90", shell(name, RULES))


@pytest.mark.root
def test_it_is_made_once_and_undone(lab: Lab, name: str) -> None:
    way = WayBack()
    assert way.ensure(lab.a) == ["IPv4 route", "IPv4 rule", "IPv6 route", "IPv6 rule"]
    assert way.ensure(lab.a) == []
    assert WayBack().ensure(lab.a) == []  # a successor
    assert shown(name) == [("32764", "100")] * 2
    assert shell(name, ROUTES).count("local default dev lo table 100 proto 90") == 2
    remove_way_back(lab.a)
    remove_way_back(lab.a)


@pytest.mark.root
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_routes_are_read_as_the_library_reads_them(lab: Lab, name: str, family: int) -> None:
    WayBack().ensure(lab.a)
    version, net = ("4", "10.9.0.0/16") if family == socket.AF_INET else ("6", "fd09::/64")
    kinds = (f"{net} dev lo", f"blackhole {net}", f"{net} dev lo proto 90", f"unreachable {net} metric 7")
    tables = [15100 + number for number in range(len(kinds))]
    for table, route in zip(tables, kinds, strict=True):
        shell(name, f"ip -{version} route add {route} table {table}")
    try:
        question = rtmsg()
        question["family"] = family
        with Netlink(lab.a) as netlink:
            found = netlink.dump(RTM_GETROUTE, encoded(question))
        known = [decoded(rtmsg(each)) for each in found]
        wanted = [
            Route(each["proto"], each["type"], each.get_attr("RTA_TABLE"), each.get_attr("RTA_OIF") or 0)
            for each in known
        ]
        assert [pull_route(body_of(each)) for each in found] == wanted
        assert {100, 254, 255, *tables} <= {each.table for each in wanted} | {254}
    finally:
        for table in tables:
            shell(name, f"ip -{version} route flush table {table}")


@pytest.mark.root
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_one_family_may_be_left_out(lab: Lab, name: str, family: int) -> None:
    way = WayBack()
    assert len(way.ensure(lab.a, [family])) == 2
    assert len(shown(name)) == 1


def loopbacks(name: str) -> list[str]:
    """The routes of our table that lead to the pod itself: family and interface."""
    shown = {version: shell(name, f"ip -{version} route show table 100") for version in "46"}
    return sorted(
        f"{version} {device}"
        for version, text in shown.items()
        for device in re.findall(r"local default dev (\w+) proto 90", text)
    )


@pytest.mark.root
def test_an_interface_on_which_servers_may_listen_has_routes(lab: Lab, name: str) -> None:
    """IPv4 has them also while it is down."""
    shell(name, "ip link add second type veth peer name third; ip link set third up")
    try:
        way, second = WayBack(), (int(shell(name, "cat /sys/class/net/second/ifindex")),)
        way.ensure(lab.a)
        assert way.ensure(lab.a, interfaces=second) == ["IPv4 route"]
        for _ in range(2):
            assert way.ensure(lab.a, interfaces=second) == []
            assert loopbacks(name) == ["4 lo", "4 second", "6 lo"]
            shell(name, "ip link set second up")
            assert way.ensure(lab.a, interfaces=second) == ["IPv6 route"]
            assert way.ensure(lab.a, interfaces=second) == []
            assert WayBack().ensure(lab.a, interfaces=second) == []  # a successor
            assert loopbacks(name) == ["4 lo", "4 second", "6 lo", "6 second"]
            shell(name, "ip link set second down")
        remove_way_back(lab.a)
        assert loopbacks(name) == []
    finally:
        shell(name, "ip link del second")


@pytest.mark.root
@pytest.mark.parametrize("family", ["4", "6"])
@pytest.mark.parametrize(
    ("taken", "repaired"),
    [
        ("ip -{0} rule del pref 32764", ["rule"]),
        ("ip -{0} route flush table 100", ["route"]),
        ("ip -{0} rule del pref 32764; ip -{0} route flush table 100", ["route", "rule"]),
    ],
)
def test_what_is_taken_away_is_made_again(lab: Lab, name: str, family, taken, repaired) -> None:
    way = WayBack()
    way.ensure(lab.a)
    before = shell(name, RULES), shell(name, ROUTES)
    shell(name, taken.format(family))
    assert way.ensure(lab.a) == [f"IPv{family} {what}" for what in repaired]
    assert (shell(name, RULES), shell(name, ROUTES)) == before
    assert way.ensure(lab.a) == []


@pytest.mark.root
@pytest.mark.parametrize("family", ["4", "6"])
def test_a_rule_that_comes_before_ours_is_overtaken(lab: Lab, name: str, family: str) -> None:
    way = WayBack()
    way.ensure(lab.a)
    shell(name, f"ip -{family} rule add lookup 200")  # without a number: the kernel puts it before ours
    try:
        assert way.ensure(lab.a) == [f"IPv{family} rule"]
        assert sorted(shown(name)) == [("32762", "100"), ("32764", "100")]
        assert way.ensure(lab.a) == []
    finally:
        shell(name, f"ip -{family} rule del lookup 200")


@pytest.mark.root
@pytest.mark.parametrize("family", ["4", "6"])
@pytest.mark.parametrize("first", [True, False])
def test_somebody_elses_table_is_neither_shared_nor_emptied(
    lab: Lab, name: str, family: str, first: bool
) -> None:
    route = f"{'10.9.0.0/16' if family == '4' else 'fd09::/64'} dev lo table 100"
    way = WayBack()
    if not first:
        way.ensure(lab.a)
    shell(name, f"ip -{family} route add {route}")
    try:
        way.ensure(lab.a)
        assert sorted(shown(name)) == [("32764", "100"), ("32764", "15100")]
        assert WayBack().ensure(lab.a) == []  # a successor finds it
        remove_way_back(lab.a)
        assert shell(name, f"ip -{family} route show table 100").strip()
        assert not shell(name, f"ip -{family} route show table 15100 2>&1 || true").count("local default")
    finally:
        shell(name, f"ip -{family} route del {route}")


@pytest.mark.root
def test_istios_own_rule_in_the_same_pod_stays_and_is_not_ours(lab: Lab, name: str) -> None:
    istio = "rule {} pref 32764 fwmark 0x111/0xfff lookup 100", "route {} local default dev lo table 100"
    shell(name, "; ".join(f"ip {each.format('add')}" for each in istio))
    try:
        WayBack().ensure(lab.a)
        assert ("32763", "15100") in shown(name)
        remove_way_back(lab.a)
        assert shell(name, "ip rule").count("0x111") == 1
        assert "local default" in shell(name, "ip route show table 100")
    finally:
        shell(name, "; ".join(f"ip {each.format('del')}" for each in istio))


@pytest.mark.root
def test_a_mark_that_somebody_else_uses_is_named(lab: Lab, name: str) -> None:
    shell(
        name, "ip rule add pref 77 fwmark 0x11/0xff lookup 777; ip route add blackhole 10.9.0.0/16 table 777"
    )
    try:
        with pytest.raises(WayBlocked, match=r"priority 77, table 777.* 0x11/0xff.* another mark"):
            WayBack().ensure(lab.a)
    finally:
        shell(name, "ip rule del pref 77; ip route flush table 777")


@pytest.mark.root
def test_without_lo_the_kernel_says_so_and_afterwards_it_is_made(lab: Lab, name: str) -> None:
    way = WayBack()
    way.ensure(lab.a)
    shell(name, "ip link set lo down")
    try:
        with pytest.raises(OSError, match="netlink: Network is down"):
            way.ensure(lab.a)
    finally:
        shell(name, "ip link set lo up")
    assert way.ensure(lab.a)
    assert shell(name, ROUTES).count("local default dev lo table 100 proto 90") == 2
