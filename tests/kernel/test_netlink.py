from __future__ import annotations

import socket

import pytest

from tests.kernel.lab import Lab, shell
from ztunnel.kernel import netlink
from ztunnel.kernel.netlink import Netlink, attribute, attributes
from ztunnel.model.address import parse_ip

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_attributes_come_back_and_what_is_cut_short_ends_them() -> None:
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


def rules(lab: Lab) -> str:
    return shell(
        lab.names["a"], "ip -4 rule; ip -4 route show table all; ip -6 rule; ip -6 route show table all"
    )


def test_the_way_back_of_marked_sockets_is_made_once_and_undone(lab: Lab) -> None:
    before = rules(lab)
    netlink.route_marked(lab.a)
    made = rules(lab)
    netlink.route_marked(lab.a)
    assert rules(lab) == made
    assert made.count("fwmark 0x111/0xfff lookup 100") == 2
    assert made.count("local default dev lo table 100") == 2
    netlink.unroute_marked(lab.a)
    netlink.unroute_marked(lab.a)
    assert rules(lab) == before


def test_one_family_may_be_left_out(lab: Lab) -> None:
    netlink.route_marked(lab.a, [socket.AF_INET])
    try:
        assert rules(lab).count("fwmark 0x111/0xfff lookup 100") == 1
    finally:
        netlink.unroute_marked(lab.a, [socket.AF_INET])


def test_a_refusal_carries_the_kernels_errno(lab: Lab) -> None:
    with Netlink(lab.a, 0) as route, pytest.raises(OSError, match="netlink: No such"):
        route.act(
            33, bytes([2, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]) + attribute(6, (4711).to_bytes(4, "little"))
        )
