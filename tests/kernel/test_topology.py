from ipaddress import IPv4Interface, ip_address, ip_network
from pathlib import Path

from ztunnel.kernel.topology import Assign, Bridge, Route, Unlink, Up, Veth


def test_values_of_one_kind_are_equal_by_what_they_say_and_of_two_kinds_are_told_apart_by_class() -> None:
    assert Route(ip_network("10.0.0.0/8"), "eth0") == Route(ip_network("10.0.0.0/8"), "eth0", None, None)
    assert type(Unlink("a")) is not type(Up("a"))


def test_what_need_not_be_said_has_a_default() -> None:
    assert Bridge("b").hardware == ""
    assert Veth("v", "eth0", Path("/run/netns/x")).hardware == ""
    assert Up("v").bridge == ""
    route = Route(ip_network("0.0.0.0/0"), via=ip_address("10.0.0.1"))
    assert (route.name, route.source) == ("", None)
    assert Assign("eth0", IPv4Interface("10.0.0.2/32")).address.network.prefixlen == 32
