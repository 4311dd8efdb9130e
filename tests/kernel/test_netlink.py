"""Netlink in a pod's namespace: its addresses, and the news of changes."""

from __future__ import annotations

import select
import struct

import pytest
from pyroute2.netlink.rtnl import RTM_DELRULE
from pyroute2.netlink.rtnl.fibmsg import fibmsg

from tests.kernel.lab import Lab, shell
from ztunnel.kernel import netlink
from ztunnel.kernel.netlink import NamespaceEvents, Netlink, attributes, encoded
from ztunnel.model.address import parse_ip

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def test_attributes_are_found_and_what_is_cut_short_ends_them() -> None:
    packed = attribute(1, b"abc") + attribute(2, b"") + attribute(0x8003, b"12345678")
    assert list(attributes(packed, 0)) == [(1, b"abc"), (2, b""), (3, b"12345678")]
    assert list(attributes(packed[:9], 0)) == [(1, b"abc")]
    assert list(attributes(bytes(8), 0)) == []


def test_a_pods_addresses_are_those_of_global_scope_outside_lo(lab: Lab) -> None:
    assert netlink.addresses(lab.a) == (parse_ip("10.77.0.2"), parse_ip("fd77::2"))
    names = lab.names["a"]
    shell(names, "ip addr add 10.1.1.1/32 dev lo; ip addr add 169.254.9.9/16 scope link dev eth0")
    shell(names, "ip addr add 10.77.0.99/24 dev eth0")
    try:
        assert set(netlink.addresses(lab.a)) == {
            parse_ip(ip) for ip in ("10.77.0.2", "10.77.0.99", "fd77::2")
        }
    finally:
        shell(names, "ip addr del 10.1.1.1/32 dev lo; ip addr del 169.254.9.9/16 dev eth0")
        shell(names, "ip addr del 10.77.0.99/24 dev eth0")


def test_link_local_addresses_come_with_their_interfaces(lab: Lab) -> None:
    names = lab.names["a"]
    index = int(shell(names, "cat /sys/class/net/eth0/ifindex"))
    shell(names, "ip addr add fe80::77/64 dev eth0 nodad")
    try:
        assert (parse_ip("fe80::77"), index) in netlink.look_up(lab.a).link_local
        assert all(ip.is_link_local for ip, _ in netlink.look_up(lab.a).link_local)
        assert parse_ip("fe80::77") not in netlink.addresses(lab.a)
    finally:
        shell(names, "ip addr del fe80::77/64 dev eth0")


def test_a_point_to_point_address_is_the_pods_end(lab: Lab) -> None:
    shell(lab.names["a"], "ip addr add 10.88.0.1 peer 10.88.0.2 dev eth0")
    try:
        assert parse_ip("10.88.0.1") in netlink.addresses(lab.a)
        assert parse_ip("10.88.0.2") not in netlink.addresses(lab.a)
    finally:
        shell(lab.names["a"], "ip addr del 10.88.0.1 peer 10.88.0.2 dev eth0")


def test_a_refusal_carries_the_kernels_errno(lab: Lab) -> None:
    rule = fibmsg()
    rule["family"], rule["action"], rule["attrs"] = 2, 1, [("FRA_PRIORITY", 4711)]
    with Netlink(lab.a) as route, pytest.raises(OSError, match="netlink: No such"):
        route.act(RTM_DELRULE, encoded(rule))


CHANGES = {
    "an IPv4 address": ("ip addr add 10.88.0.1/32 dev eth0", "ip addr del 10.88.0.1/32 dev eth0"),
    "an IPv6 address": ("ip addr add fd88::1/128 dev eth0 nodad", "ip addr del fd88::1/128 dev eth0"),
    "an IPv4 rule": ("ip rule add pref 999 lookup 999", "ip rule del pref 999"),
    "an IPv6 rule": ("ip -6 rule add pref 999 lookup 999", "ip -6 rule del pref 999"),
    "an IPv4 route": ("ip route add 10.99.0.0/16 dev lo table 999", "ip route flush table 999"),
    "an IPv6 route": ("ip -6 route add fd99::/64 dev lo table 999", "ip -6 route flush table 999"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_told_when_it_comes_and_when_it_goes(lab: Lab, change: str) -> None:
    events = NamespaceEvents(lab.a)
    try:
        assert not events.drain()
        for command in CHANGES[change]:
            shell(lab.names["a"], command)
            assert select.select([events], [], [], 3.0)[0]
            while events.drain():
                pass
        shell(lab.names["b"], "; ".join(CHANGES[change]))
        assert not events.drain()
    finally:
        events.close()


def test_more_changes_than_are_kept_are_a_change(lab: Lab) -> None:
    events = NamespaceEvents(lab.a)
    try:
        add = "".join(f"route add 10.{64 + n // 250}.{n % 250}.0/24 dev lo table 999\n" for n in range(2000))
        shell(lab.names["a"], f"printf '{add}' | ip -batch -; ip route flush table 999")
        assert events.drain()
        for _ in range(1000):
            if not events.drain():
                break
        shell(lab.names["a"], "ip rule add pref 999 lookup 999; ip rule del pref 999")
        assert events.drain()
    finally:
        events.close()
