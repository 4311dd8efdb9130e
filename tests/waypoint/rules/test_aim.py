"""Where requests through one tunnel go: found out once, chosen each time."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.builders import world_of
from tests.hbone.conftest import contexts, lab
from tests.hbone.peers import Lab
from tests.waypoint.exchange.test_exchange import begin
from tests.waypoint.mesh import CALLER, ME, SERVERS, SERVICE, WEB, Mesh
from tests.waypoint.rig import Rig
from ztunnel.errors import Unreachable
from ztunnel.l7.routing.plan import Plan
from ztunnel.model.address import OriginalDestination
from ztunnel.model.route_action import Destination
from ztunnel.model.service_traffic import ClientTraffic, ServiceTraffic
from ztunnel.model.traffic import Balance, Balancing, PortTraffic, Traffic
from ztunnel.state.delta import apply
from ztunnel.waypoint.rules.aim import Aims, Terms

__all__ = ["contexts", "lab"]
VIP = OriginalDestination(SERVICE.addresses[0], 80)
IN_TURN = ServiceTraffic(WEB, (ClientTraffic("", PortTraffic(Traffic(Balancing(Balance.ROUND_ROBIN)))),))


class Sent:
    """Requests through one tunnel: nobody can be reached, and what counts is who was to be."""

    def __init__(self, lab: Lab, *more) -> None:
        self.mesh = Mesh(lab)
        self.terms = Terms(VIP, CALLER.addresses[0])
        self.change(*more)
        for each in SERVERS:
            self.mesh.tunnels.refuses[str(each.addresses[0])] = Unreachable("nobody is there")

    def change(self, *items) -> None:
        world, what = apply(self.mesh.hold.world, items)
        self.mesh.hold.publish(world, what)

    def to(self, sought: Destination | None = None) -> str:
        """The address that one request goes to; empty: to none."""
        rig = Rig()
        rig.waits = True
        rig.plan = Plan("p")
        rig.plan.destination = sought
        exchange, _ = begin(rig)
        self.mesh.servers.connect(exchange, self.terms, 1)
        return exchange.host


@pytest.fixture
def sent(lab: Lab) -> Sent:
    return Sent(lab, IN_TURN)


@pytest.mark.parametrize("sought", [None, Destination(WEB)], ids=["what was called", "what a route means"])
def test_each_endpoint_has_its_turn_also_while_it_is_not_known(
    sent: Sent, sought: Destination | None
) -> None:
    found = Counter(sent.to(sought) for _ in range(10))
    assert found == {"10.0.0.3:8080": 5, "10.0.0.4:8080": 5}


def test_another_world_is_another_aim(sent: Sent) -> None:
    assert {sent.to() for _ in range(4)} == {"10.0.0.3:8080", "10.0.0.4:8080"}
    sent.change(replace(SERVERS[0], services={}))
    assert {sent.to() for _ in range(4)} == {"10.0.0.4:8080"}
    sent.change(replace(SERVERS[1], services={}))
    assert {sent.to() for _ in range(4)} == {""}
    sent.change(*SERVERS)
    assert {sent.to() for _ in range(4)} == {"10.0.0.3:8080", "10.0.0.4:8080"}


def test_aims_of_a_world_are_one_for_each_destination_and_keep_no_world() -> None:
    aims, world, sought = Aims(), world_of(ME), Destination(WEB)
    one = aims.of(world, None)
    assert aims.of(world, None) is one
    other = aims.of(world, sought)
    assert other is not one
    assert other.sought is sought
    assert aims.of(world, sought) is other
    assert aims.of(world_of(ME), sought) is not other


def test_there_are_only_so_many() -> None:
    aims, world = Aims(), world_of(ME)
    for _ in range(1000):
        aims.of(world, Destination(WEB))
    assert len(aims._found) <= 256
