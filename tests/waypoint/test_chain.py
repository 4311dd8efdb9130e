"""What a waypoint stands for, and how it is treated."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.builders import world_of
from ztunnel.errors import NoDestination
from ztunnel.model.address import Endpoint, OriginalDestination
from ztunnel.model.service import AppProtocol, Port, Service, ServiceName, Waypoint
from ztunnel.model.workload import Workload
from ztunnel.waypoint.chain import Chain, Treatment, chain_of, jwt_policies_of

WP = ServiceName("shop", "wp.shop.svc.cluster.local")
OURS, THEIRS = Waypoint(WP, None), Waypoint(ServiceName("shop", "other"), None)


def service(name: str, ip: str, waypoint: Waypoint | None, **protocols: AppProtocol) -> Service:
    return Service(
        name, "shop", f"{name}.shop.svc.cluster.local", (ip_address(ip),),
        tuple(Port(port, 8080) for port in (25, 80, 81, 90, 5432)), waypoint=waypoint,
        protocols=tuple((int(key[1:]), value) for key, value in protocols.items()),
    )  # fmt: skip


def workload(name: str, ip: str, waypoint: Waypoint | None = None, services=(), port=15008) -> Workload:
    return Workload(
        f"k//Pod/shop/{name}", name, "shop", addresses=(ip_address(ip),), waypoint=waypoint,
        services={each: (Port(80, port),) for each in services},
    )  # fmt: skip


ME = workload("wp-1", "10.0.0.1", services=[WP])
WORLD = world_of(
    ME,
    workload("server", "10.0.0.2"),
    workload("mine", "10.0.0.3", OURS),
    workload("db", "10.0.0.5", OURS, [ServiceName("shop", "db.shop.svc.cluster.local")], 9000),
    workload(
        "both",
        "10.0.0.6",
        OURS,
        [ServiceName("shop", f"{name}.shop.svc.cluster.local") for name in ("db", "their")],
        9000,
    ),
    service("db", "10.1.0.4", None, p80=AppProtocol.GRPC, p81=AppProtocol.TLS),
    workload("others", "fd00::4", THEIRS),
    service("web", "10.1.0.1", OURS, p80=AppProtocol.HTTP, p81=AppProtocol.GRPC, p5432=AppProtocol.TCP),
    service("their", "10.1.0.2", THEIRS),
    service("free", "10.1.0.3", None),
)


@pytest.mark.parametrize(
    ("asked", "treatment", "cluster"),
    [
        ("10.1.0.1:80", Treatment.HTTP, "inbound-vip|80|http|web.shop.svc.cluster.local"),
        ("10.1.0.1:81", Treatment.HTTP, "inbound-vip|81|http|web.shop.svc.cluster.local"),
        ("10.1.0.1:5432", Treatment.TCP, "inbound-vip|5432|http|web.shop.svc.cluster.local"),
        ("10.1.0.1:90", Treatment.DETECT, "inbound-vip|90|http|web.shop.svc.cluster.local"),
        ("10.1.0.1:25", Treatment.TCP, "inbound-vip|25|http|web.shop.svc.cluster.local"),
        ("10.0.0.3:8080", Treatment.DETECT, "encap"),
        ("10.0.0.3:3306", Treatment.TCP, "encap"),
        ("10.0.0.5:9000", Treatment.HTTP, "encap"),  # as its service's port 80 says
        ("10.0.0.5:9001", Treatment.DETECT, "encap"),
        ("10.0.0.6:9000", Treatment.DETECT, "encap"),  # two services, of which one says nothing
    ],
)
def test_a_port_is_treated_as_it_says(asked: str, treatment: Treatment, cluster: str) -> None:
    ip, _, port = asked.rpartition(":")
    found = chain_of(WORLD, ME, Endpoint(ip_address(ip), int(port)))
    assert found.treatment is treatment
    assert found.cluster("http") == cluster
    assert str(found.destination) == asked


def test_it_stands_for_services_that_only_their_own_namespace_sees() -> None:
    web = replace(WORLD.service(ServiceName("shop", "web.shop.svc.cluster.local")), private=True)
    far = replace(ME, namespace="gates")
    assert chain_of(world_of(far, web), far, Endpoint(ip_address("10.1.0.1"), 80)).service == web


@pytest.mark.parametrize(
    "asked",
    [
        ("10.0.0.2", 80),  # a pod without a waypoint
        ("fd00::4", 80),  # a pod of another waypoint
        ("10.0.0.1", 15008),  # ourselves
        ("10.1.0.2", 80),  # a service of another waypoint
        ("10.1.0.3", 80),  # a service without one
        ("10.1.0.1", 82),  # a port that it does not have
        ("10.9.9.9", 80),  # nobody
        ("127.0.0.1", 15000),
        ("169.254.169.254", 80),
    ],
)
def test_it_stands_for_nothing_else(asked: tuple[str, int]) -> None:
    with pytest.raises(NoDestination):
        chain_of(WORLD, ME, Endpoint(ip_address(asked[0]), asked[1]))


@pytest.mark.parametrize(
    ("protocol", "asked", "grpc", "version"),
    [
        (AppProtocol.HTTP, 1, False, 1),
        (AppProtocol.HTTP, 2, False, 1),
        (AppProtocol.HTTP, 2, True, 2),
        (AppProtocol.HTTP, 1, True, 1),
        (AppProtocol.HTTP2, 1, False, 2),
        (AppProtocol.GRPC, 1, False, 2),
        (AppProtocol.GRPC, 2, True, 2),
        (None, 1, False, 1),
        (None, 2, False, 2),
    ],
)
def test_the_version_is_the_ports_and_else_the_clients(
    protocol, asked: int, grpc: bool, version: int
) -> None:
    destination = OriginalDestination(ip_address("10.1.0.1"), 80)
    assert Chain(destination, None, Treatment.HTTP, protocol).version(asked, grpc) == version


def test_rules_about_tokens_are_those_of_what_is_called_and_of_the_waypoint() -> None:
    own = Service("wp", "shop", WP.hostname, jwt_policies=("shop/own", "shop/both"))
    called = replace(service("web", "10.1.0.1", OURS), jwt_policies=("shop/both", "shop/web"))
    world = world_of(ME, own, called)
    chain = chain_of(world, ME, Endpoint(ip_address("10.1.0.1"), 80))
    assert jwt_policies_of(world, ME, chain) == ("shop/own", "shop/both", "shop/web")
    assert jwt_policies_of(world_of(ME), ME, chain) == ()
