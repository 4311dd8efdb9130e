"""Endpoints of what a route means; `test_connect` has those of what was called."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from random import Random

import pytest

from tests.builders import world_of
from tests.hbone.conftest import contexts, lab
from tests.hbone.peers import Lab
from tests.waypoint.mesh import CALLER, ME, PORTS, SERVERS, SERVICE, WEB, Mesh, workload
from ztunnel.errors import NoDestination
from ztunnel.model.address import Endpoint, OriginalDestination
from ztunnel.model.labels import WorkloadLabels
from ztunnel.model.route import ConnectionRule, Routes, RouteSource
from ztunnel.model.route_action import Destination, Forward, Refusal
from ztunnel.model.service import LoadBalancing, Port, Service, ServiceName, Waypoint
from ztunnel.state.delta import apply
from ztunnel.state.lookup import subset_of
from ztunnel.waypoint.chain import Chain, Treatment
from ztunnel.waypoint.upstream.find import choose_for, drawn

__all__ = ["contexts", "lab"]
VIP = OriginalDestination(SERVICE.addresses[0], 80)
OTHER = ServiceName("shop", "other.shop.svc.cluster.local")
ELSEWHERE = workload("other-1", "10.0.0.5", OTHER, PORTS)
V1, V2 = (("version", "v1"),), (("version", "v2"),)
LABELS = [
    WorkloadLabels(SERVERS[0].uid, frozenset({("app", "web"), *V1})),
    WorkloadLabels(SERVERS[1].uid, frozenset({("app", "web"), *V2})),
]


def other(**more: object) -> Service:
    made = Service("other", "shop", OTHER.hostname, (ip_address("10.1.0.2"),), PORTS)
    return replace(made, **more)  # type: ignore[arg-type]


def mesh_of(lab: Lab, *more: object) -> Mesh:
    mesh = Mesh(lab)
    mesh.hold.world = apply(world_of(ME, CALLER, *SERVERS, SERVICE, ELSEWHERE), [*LABELS, *more])[0]
    return mesh


def at(ip: str) -> Endpoint:
    return Endpoint(ip_address(ip), 8080)


def test_a_subset_is_the_endpoints_with_its_labels(lab: Lab) -> None:
    mesh = mesh_of(lab)
    for labels, ip in ((V1, "10.0.0.3"), (V2, "10.0.0.4")):
        found = {mesh.choose_of(Destination(WEB, labels=labels), VIP).endpoint for _ in range(20)}
        assert found == {at(ip)}
    both = Destination(WEB, labels=(("app", "web"),))
    assert {mesh.choose_of(both, VIP).endpoint for _ in range(50)} == {at("10.0.0.3"), at("10.0.0.4")}
    with pytest.raises(NoDestination, match="no healthy upstream"):
        mesh.choose_of(Destination(WEB, labels=(*V1, ("zone", "a"))), VIP)


def test_a_subset_follows_the_labels(lab: Lab) -> None:
    mesh = mesh_of(lab)
    v3 = Destination(WEB, labels=(("version", "v3"),))
    with pytest.raises(NoDestination):
        mesh.choose_of(v3, VIP)
    relabelled = WorkloadLabels(SERVERS[0].uid, frozenset({("version", "v3")}))
    mesh.hold.publish(*apply(mesh.hold.world, [relabelled]))
    assert mesh.choose_of(v3, VIP).endpoint == at("10.0.0.3")


def test_one_that_failed_is_avoided_within_the_subset(lab: Lab) -> None:
    mesh, both = mesh_of(lab), Destination(WEB, labels=(("app", "web"),))
    assert {mesh.choose_of(both, VIP, at("10.0.0.3")).endpoint for _ in range(30)} == {at("10.0.0.4")}


@pytest.mark.parametrize("addresses", [(ip_address("10.1.0.2"),), (), (ip_address("fd00::2"),)])
def test_another_service_is_reached_with_and_without_an_address(lab: Lab, addresses: tuple) -> None:
    mesh = mesh_of(lab, other(addresses=addresses))
    target = mesh.choose_of(Destination(OTHER, 90), VIP)
    assert (target.endpoint, target.destination) == (at("10.0.0.5"), ELSEWHERE)
    assert target.key is not None
    assert target.key.destinations == {ELSEWHERE.identity}


def test_a_service_behind_another_waypoint_is_called_through_that(lab: Lab) -> None:
    wp2 = ServiceName("shop", "wp2.shop.svc.cluster.local")
    second = workload("wp2", "10.0.0.9", wp2, (Port(15008, 15008),), native_tunnel=True)
    waypoint = Service("wp2", "shop", wp2.hostname, (ip_address("10.1.0.9"),))
    mesh = mesh_of(lab, other(waypoint=Waypoint(wp2, None)), second, waypoint)
    target = mesh.choose_of(Destination(OTHER, 90), VIP)
    assert target.destination == second
    assert target.endpoint == Endpoint(ip_address("10.1.0.2"), 90)  # what it is asked for
    assert target.key is not None
    assert target.key.destination == Endpoint(ip_address("10.0.0.9"), 15008)
    with pytest.raises(NoDestination, match="chooses its endpoints itself"):
        mesh.choose_of(Destination(OTHER, 90, labels=V1), VIP)


def test_what_has_no_endpoints_is_not_called(lab: Lab) -> None:
    with pytest.raises(NoDestination, match="is not known"):
        mesh_of(lab).choose_of(Destination(ServiceName("shop", "nobody")), VIP)
    passing = other(load_balancing=LoadBalancing.PASSTHROUGH)
    with pytest.raises(NoDestination, match="the addresses that are called"):
        mesh_of(lab, passing).choose_of(Destination(OTHER, 90), VIP)
    with pytest.raises(NoDestination, match="not in the mesh"):
        Mesh(lab, CALLER, *SERVERS, SERVICE).choose_of(Destination(WEB), VIP)


def test_a_subset_is_a_service_of_its_own(lab: Lab) -> None:
    world = mesh_of(lab).hold.world
    made = subset_of(world, world.served[WEB], V1)
    assert made.service == SERVICE
    assert made.endpoints == (SERVERS[0],)


SOURCE = RouteSource("TCPRoute", "shop", "web")


def ruled(lab: Lab, *rules: ConnectionRule) -> Mesh:
    return mesh_of(lab, other(), Routes(WEB, (), rules))


def rule(
    *destinations: Destination, ports: tuple[int, ...] = (), subnets: tuple[str, ...] = ()
) -> ConnectionRule:
    return ConnectionRule("", SOURCE, Forward(destinations), ports, tuple(map(ip_network, subnets)))


def ends(mesh: Mesh, service: Service | None = SERVICE) -> set[str]:
    chain = Chain(VIP, service, Treatment.TCP)
    return {str(choose_for(mesh.here, chain, CALLER.addresses[0])[0].endpoint.ip) for _ in range(60)}


ALL = {"10.0.0.3", "10.0.0.4"}


def test_a_rule_says_where_a_connection_goes(lab: Lab) -> None:
    assert ends(ruled(lab, rule(Destination(OTHER, 80)))) == {"10.0.0.5"}
    assert ends(ruled(lab, rule(Destination(WEB, labels=V2)))) == {"10.0.0.4"}
    assert ends(ruled(lab, rule(Destination(OTHER, 80), Destination(WEB, labels=V2)))) == {
        "10.0.0.5", "10.0.0.4",
    }  # fmt: skip


def test_what_no_rule_is_for_goes_to_what_was_called(lab: Lab) -> None:
    assert ends(ruled(lab)) == ALL
    assert ends(ruled(lab, rule(Destination(OTHER), ports=(81,)))) == ALL
    assert ends(ruled(lab, rule(Destination(OTHER), subnets=("192.0.2.0/24", "fd00::/8")))) == ALL
    assert ends(ruled(lab, rule(Destination(OTHER, 80), ports=(80,), subnets=("10.0.0.0/8",)))) == {
        "10.0.0.5"
    }


def test_the_share_of_what_cannot_be_had_is_refused_with_its_reason(lab: Lab) -> None:
    refused = Destination(OTHER, refusal=Refusal(503, "no such subset"))
    with pytest.raises(NoDestination, match=r"^TCPRoute shop/web: no such subset$"):
        ends(ruled(lab, rule(refused)))
    with pytest.raises(NoDestination):
        ends(ruled(lab, rule(refused, Destination(OTHER, 80))))


def test_a_pod_that_is_called_by_its_own_address_has_no_rules(lab: Lab) -> None:
    assert ends(ruled(lab, rule(Destination(OTHER, 80))), None) == ALL


def test_shares_are_by_weight_and_one_that_is_alone_gets_all() -> None:
    rng, forward = Random(1), Forward((Destination(OTHER, weight=9), Destination(WEB, weight=1)))
    drawn_ones = [drawn(forward, rng).service for _ in range(4000)]
    assert 3500 < drawn_ones.count(OTHER) < 3700
    assert drawn(Forward((Destination(WEB, weight=0),)), rng).service == WEB
