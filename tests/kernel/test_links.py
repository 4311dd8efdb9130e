"""Links, addresses and routes, as `ip` shows them afterwards."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.lab import unique
from ztunnel.kernel import named
from ztunnel.kernel.links import NotChanged, change, names, try_changes
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.topology import Assign, Bridge, Change, Route, Unlink, Unroute, Up, Veth

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


class Place:
    """A namespace of its own."""

    def __init__(self) -> None:
        self.path = Path("/run/netns") / unique()
        named.create(self.path)
        self.netns = NetworkNamespace.open(self.path)

    def change(self, *changes: Change) -> None:
        change(self.netns, changes)

    def show(self, *words: str) -> list[dict[str, Any]]:
        command = ["ip", "-json", "-details", "-n", self.path.name, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [each for each in json.loads(done.stdout or "[]") if each]

    def close(self) -> None:
        self.netns.close()
        named.remove(self.path)


@pytest.fixture
def here() -> Iterator[Place]:
    place = Place()
    yield place
    place.close()


@pytest.fixture
def there() -> Iterator[Place]:
    place = Place()
    yield place
    place.close()


def test_a_pair_of_ends_and_a_bridge_with_their_hardware_addresses(here: Place, there: Place) -> None:
    here.change(
        Bridge("br0", "02:00:00:00:00:01"),
        Up("br0"),
        Veth("v0", "eth0", there.path, "02:00:00:00:00:02"),
        Up("v0", "br0"),
    )
    [bridge] = here.show("link", "show", "br0")
    assert bridge["address"] == "02:00:00:00:00:01"
    options = bridge["linkinfo"]["info_data"]
    assert (options["stp_state"], options["forward_delay"], options["mcast_snooping"]) == (0, 0, 0)
    [port] = here.show("link", "show", "v0")
    assert port["master"] == "br0"
    assert "UP" in port["flags"]
    [peer] = there.show("link", "show", "eth0")
    assert (peer["address"], peer["linkinfo"]["info_kind"]) == ("02:00:00:00:00:02", "veth")
    assert set(names(here.netns)) >= {"lo", "br0", "v0"}
    here.change(Unlink("v0"))
    assert "eth0" not in names(there.netns)


def test_addresses_and_routes_of_both_families(here: Place, there: Place) -> None:
    gateways = ip_address("10.1.0.1"), ip_address("fd01::1")
    own = IPv4Interface("10.1.0.2/32"), IPv6Interface("fd01::2/128")
    here.change(Veth("v0", "eth0", there.path), Up("v0"))
    there.change(Up("lo"), Up("eth0"))
    for address, gateway, default in zip(own, gateways, ("0.0.0.0/0", "::/0"), strict=True):
        there.change(
            Assign("eth0", address),
            Route(ip_network(gateway), "eth0"),
            Route(ip_network(default), via=gateway, source=address.ip),
        )
    [link] = there.show("address", "show", "eth0")
    shown = {(each["local"], each["prefixlen"], each.get("tentative", False)) for each in link["addr_info"]}
    assert {("10.1.0.2", 32, False), ("fd01::2", 128, False)} <= shown
    for family, address, gateway in zip(("-4", "-6"), own, gateways, strict=True):
        routes = {each["dst"]: each for each in there.show(family, "route")}
        assert routes["default"]["gateway"] == str(gateway)
        assert routes["default"]["prefsrc"] == str(address.ip)
        assert routes[str(gateway)]["dev"] == "eth0"
    far = ip_network("10.2.0.0/16"), ip_network("fd02::/64")
    for network, gateway in zip(far, gateways, strict=True):
        there.change(Route(network, via=gateway))
        there.change(Unroute(network, gateway))
    shown = {each["dst"] for family in ("-4", "-6") for each in there.show(family, "route")}
    assert not {str(each) for each in far} & shown


def test_what_the_kernel_refuses_is_said_with_its_reason_and_what_came_before_stays(here: Place) -> None:
    with pytest.raises(NotChanged, match="up none: No such device"):
        here.change(Up("lo"), Up("none"))
    with pytest.raises(NotChanged, match=r"assign lo 10\.0\.0\.1/32: File exists"):
        here.change(*[Assign("lo", IPv4Interface("10.0.0.1/32"))] * 2)
    with pytest.raises(NotChanged, match=r"route 10\.9\.0\.0/16 10\.8\.0\.1: Network is unreachable"):
        here.change(Route(ip_network("10.9.0.0/16"), via=ip_address("10.8.0.1")))
    with pytest.raises(NotChanged, match="veth v0 eth0 /run/netns/none: No such file"):
        here.change(Veth("v0", "eth0", Path("/run/netns/none")))
    [loopback] = here.show("address", "show", "lo")
    assert "10.0.0.1" in {each["local"] for each in loopback["addr_info"]}


def test_what_is_not_there_need_not_be_removed(here: Place) -> None:
    here.change(Bridge("br0"))
    try_changes(here.netns, [Unlink("none"), Unroute(ip_network("10.9.0.0/16"), ip_address("10.8.0.1"))])
    try_changes(here.netns, [Unlink("none"), Unlink("br0")])
    assert names(here.netns) == ["lo"]
