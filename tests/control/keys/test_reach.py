"""Which addresses are asked for keys."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from ztunnel.control.keys.reach import Reach


@pytest.mark.parametrize(
    ("address", "admitted"),
    [
        ("10.1.2.3", True),
        ("192.168.1.1", True),
        ("93.184.216.34", True),
        ("2001:db8::1", True),
        ("fd00::1", True),
        ("127.0.0.1", False),
        ("127.9.9.9", False),
        ("::1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("169.254.169.254", False),
        ("169.254.170.2", False),
        ("fe80::1", False),
        ("fd00:ec2::254", False),
        ("100.100.100.200", False),
        ("168.63.129.16", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("::ffff:10.0.0.1", True),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b::808:808", True),
        ("2002:a9fe:a9fe::1", False),
        ("2002:808:808::1", True),
    ],
)
def test_nothing_of_our_own_machine_and_link_is_asked(address: str, admitted: bool) -> None:
    assert Reach().admits(ip_address(address)) is admitted


def test_more_may_be_blocked_and_some_allowed() -> None:
    it = Reach((ip_network("10.1.0.0/16"), ip_network("::1/128")), (ip_network("10.0.0.0/8"),))
    asked = ("10.2.0.1", "10.1.0.1", "::ffff:10.2.0.1", "::1", "127.0.0.1", "11.0.0.1")
    assert [it.admits(ip_address(each)) for each in asked] == [False, True, False, True, False, True]
