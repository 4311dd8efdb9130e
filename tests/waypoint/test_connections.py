"""Connections go where a rule for them says, by weight, and else to what was called."""

from __future__ import annotations

from ipaddress import ip_network
from random import Random

import pytest

from tests.builders import world_of
from tests.hbone.conftest import contexts, lab
from tests.hbone.peers import Lab
from tests.waypoint.mesh import CALLER, ME, PORTS, SERVERS, SERVICE, WEB, Mesh, workload
from ztunnel.errors import NoDestination
from ztunnel.model.address import OriginalDestination
from ztunnel.model.labels import WorkloadLabels
from ztunnel.model.route import ConnectionRule, Routes, RouteSource
from ztunnel.model.route_action import Destination, Forward, Refusal
from ztunnel.model.service import Service, ServiceName
from ztunnel.state.delta import apply
from ztunnel.waypoint.chain import Chain, Treatment
from ztunnel.waypoint.connections import choose, drawn

__all__ = ["contexts", "lab"]
VIP = OriginalDestination(SERVICE.addresses[0], 80)
SOURCE = RouteSource("TCPRoute", "shop", "web")
V2 = (("version", "v2"),)
OTHER = ServiceName("shop", "other.shop.svc.cluster.local")
ELSEWHERE = workload("other-1", "10.0.0.5", OTHER, PORTS)


def mesh_of(lab: Lab, *rules: ConnectionRule) -> Mesh:
    mesh = Mesh(lab)
    other = Service("other", "shop", OTHER.hostname, (), PORTS)
    world = world_of(ME, CALLER, *SERVERS, SERVICE, ELSEWHERE, other)
    labels = WorkloadLabels(SERVERS[1].uid, frozenset(V2))
    mesh.hold.world = apply(world, [labels, Routes(WEB, (), rules)])[0]
    return mesh


def rule(
    *destinations: Destination, ports: tuple[int, ...] = (), subnets: tuple[str, ...] = ()
) -> ConnectionRule:
    return ConnectionRule("", SOURCE, Forward(destinations), ports, tuple(map(ip_network, subnets)))


def ends(mesh: Mesh, service: Service | None = SERVICE) -> set[str]:
    chain = Chain(VIP, service, Treatment.TCP)
    return {str(choose(mesh.here, chain).endpoint.ip) for _ in range(60)}


ALL = {"10.0.0.3", "10.0.0.4"}


def test_a_rule_says_where_a_connection_goes(lab: Lab) -> None:
    assert ends(mesh_of(lab, rule(Destination(OTHER, 80)))) == {"10.0.0.5"}
    assert ends(mesh_of(lab, rule(Destination(WEB, labels=V2)))) == {"10.0.0.4"}
    assert ends(mesh_of(lab, rule(Destination(OTHER, 80), Destination(WEB, labels=V2)))) == {
        "10.0.0.5", "10.0.0.4",
    }  # fmt: skip


def test_what_no_rule_is_for_goes_to_what_was_called(lab: Lab) -> None:
    assert ends(mesh_of(lab)) == ALL
    assert ends(mesh_of(lab, rule(Destination(OTHER), ports=(81,)))) == ALL
    assert ends(mesh_of(lab, rule(Destination(OTHER), subnets=("192.0.2.0/24", "fd00::/8")))) == ALL
    assert ends(mesh_of(lab, rule(Destination(OTHER, 80), ports=(80,), subnets=("10.0.0.0/8",)))) == {
        "10.0.0.5"
    }


def test_the_share_of_what_cannot_be_had_is_refused_with_its_reason(lab: Lab) -> None:
    refused = Destination(OTHER, refusal=Refusal(503, "no such subset"))
    with pytest.raises(NoDestination, match=r"^TCPRoute shop/web: no such subset$"):
        ends(mesh_of(lab, rule(refused)))
    with pytest.raises(NoDestination):
        ends(mesh_of(lab, rule(refused, Destination(OTHER, 80))))


def test_a_pod_that_is_called_by_its_own_address_has_no_rules(lab: Lab) -> None:
    assert ends(mesh_of(lab, rule(Destination(OTHER, 80))), None) == ALL


def test_shares_are_by_weight_and_one_that_is_alone_gets_all() -> None:
    rng, forward = Random(1), Forward((Destination(OTHER, weight=9), Destination(WEB, weight=1)))
    drawn_ones = [drawn(forward, rng).service for _ in range(4000)]
    assert 3500 < drawn_ones.count(OTHER) < 3700
    assert drawn(Forward((Destination(WEB, weight=0),)), rng).service == WEB
