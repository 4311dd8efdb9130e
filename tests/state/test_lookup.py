"""lookup: which service, which port, which address, which waypoint is meant."""

from __future__ import annotations

import pytest

from tests.builders import ip, service, workload, world_of
from ztunnel.model.address import parse_endpoint
from ztunnel.model.provider import ExtAuthz, ExtensionProvider, Prometheus, ServicePort, Speech
from ztunnel.model.service import IpFamilies
from ztunnel.state.lookup import (
    Authorizer,
    address_of,
    authorizer_of,
    concerns,
    is_waypoint,
    service_at,
    service_named,
    service_of,
    target_port,
)


def test_of_several_services_the_clients_own_namespace_counts_else_the_first() -> None:
    here, there = service("web", "here").at("10.96.0.1"), service("web", "there").at("10.96.0.1")
    world = world_of(there, here)
    assert service_at(world, parse_endpoint("10.96.0.1:80"), "there") is there
    assert service_at(world, parse_endpoint("10.96.0.1:80"), "elsewhere") is here
    assert service_at(world, parse_endpoint("10.96.0.2:80"), "here") is None
    assert service_named(world, there.hostname, "here") is there
    assert service_named(world, "unheard.of", "here") is None


def test_a_private_service_is_there_for_its_own_namespace_alone() -> None:
    web, api = service("web", "here").at("10.96.0.1").hidden(), service("api", "there").at("10.96.0.1")
    called = parse_endpoint("10.96.0.1:80")
    assert service_at(world_of(web), called, "here") is web
    assert service_at(world_of(web), called, "there") is None
    assert service_at(world_of(web), called, "there", hidden=True) is web
    assert service_at(world_of(web, api), called, "elsewhere") is api
    assert service_named(world_of(web), web.hostname, "here") is web
    assert service_named(world_of(web), web.hostname, "there") is None
    assert concerns(world_of(web), called.ip)


def test_an_external_address_is_the_services_at_its_ports_only() -> None:
    web = service("web", "there").at("10.96.0.1", "192.0.2.1").port(80, 8080).reached_at("192.0.2.1")
    other = service("other", "here").at("192.0.2.1").port(90, 9090).reached_at("192.0.2.1")
    world = world_of(web, other)
    for called, found in (
        ("192.0.2.1:80", web),
        ("192.0.2.1:90", other),
        ("192.0.2.1:22", None),
        ("10.96.0.1:80", web),
        ("10.96.0.1:22", web),
    ):
        assert service_at(world, parse_endpoint(called), "here") is found


def test_a_hostname_means_the_service_that_the_workload_serves() -> None:
    web = service("web")
    a = workload("a").serves(web, 80)
    world = world_of(web, service("api"))
    assert service_of(world, a, web.hostname) is web
    assert service_of(world, a, service("api").hostname) is None
    assert service_of(world_of(), a, web.hostname) is None


@pytest.mark.parametrize(
    ("by_service", "by_workload", "port", "expected"),
    [
        ((80, 8080), None, 80, 8080),
        ((80, 8080), (80, 9090), 80, 9090),
        ((80, 8080), (80, 0), 80, 8080),
        ((80, 0), (80, 9090), 80, 9090),
        ((80, 0), None, 80, 0),
        ((80, 8080), None, 81, 0),
    ],
)
def test_a_target_port_is_the_workloads_word_then_the_services(
    by_service: tuple[int, int], by_workload: tuple[int, int] | None, port: int, expected: int
) -> None:
    web = service("web").port(*by_service)
    a = workload("a").serves(web, *([by_workload] if by_workload else []))
    assert target_port(web, a, port) == expected


@pytest.mark.parametrize(
    ("has", "asked", "families", "expected"),
    [
        (["10.0.0.1", "fd00::1"], "10.96.0.1", IpFamilies.AUTOMATIC, "10.0.0.1"),
        (["10.0.0.1", "fd00::1"], "fd00:96::1", IpFamilies.DUAL, "fd00::1"),
        (["10.0.0.1"], "fd00:96::1", IpFamilies.AUTOMATIC, "10.0.0.1"),
        (["10.0.0.1", "fd00::1"], "fd00:96::1", IpFamilies.IPV4_ONLY, "10.0.0.1"),
        (["10.0.0.1", "fd00::1"], "10.96.0.1", IpFamilies.IPV6_ONLY, "fd00::1"),
        (["10.0.0.1"], "10.96.0.1", IpFamilies.IPV6_ONLY, None),
        (["fd00::1", "10.0.0.1", "10.0.0.2"], "10.0.0.2", IpFamilies.IPV6_ONLY, "10.0.0.2"),
        (["fd00::1", "10.0.0.1", "10.0.0.2"], "10.0.0.3", IpFamilies.AUTOMATIC, "10.0.0.1"),
        ([], "10.0.0.1", IpFamilies.AUTOMATIC, None),
    ],
)
def test_an_address_is_the_one_asked_for_then_one_of_the_callers_family(
    has: list[str], asked: str, families: IpFamilies, expected: str | None
) -> None:
    assert address_of(workload("a").at(*has), ip(asked), families) == (ip(expected) if expected else None)


def test_a_waypoint_is_recognised_by_its_service_its_address_and_its_services_address() -> None:
    gate = service("gate").at("10.96.0.9").port(15008)
    pod = workload("gate-1").at("10.0.0.9").serves(gate, 15008)
    other = workload("b").at("10.0.0.8")
    world = world_of(gate, pod, other)
    for bound in (other.through(gate), other.through("10.0.0.9"), other.through("10.96.0.9")):
        assert bound.waypoint is not None
        assert is_waypoint(world, pod, bound.waypoint)
        assert not is_waypoint(world, other, bound.waypoint)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("10.0.0.1", True),
        ("fd00::1", True),
        ("10.0.0.2", False),
        ("10.0.0.3", True),
        ("10.0.0.4", True),
        ("10.0.0.5", False),
        ("10.0.0.6", False),
        ("10.96.0.1", True),
        ("fd00:96::1", True),
        ("192.0.2.1", False),
    ],
    ids=[
        "pod",
        "pod's IPv6",
        "plain pod",
        "behind a waypoint",
        "waypoint",
        "node",
        "elsewhere",
        "service",
        "6",
        "?",
    ],
)
def test_an_address_concerns_the_mesh_if_something_is_to_be_decided(at: str, expected: bool) -> None:
    world = world_of(
        workload("a").at("10.0.0.1", "fd00::1").hbone(),
        workload("b").at("10.0.0.2").plain(),
        workload("c").at("10.0.0.3").plain().through("10.0.0.4"),
        workload("d").at("10.0.0.4").native(),
        workload("e").at("10.0.0.5").hbone().host_networked(),
        workload("f").at("10.0.0.6").hbone().in_network("elsewhere"),
        service("web").at("10.96.0.1", "fd00:96::1"),
    )
    assert concerns(world, ip(at)) == expected


ASKS = service("asks", "auth").at("10.96.0.9").port(8000, 8000)


@pytest.mark.parametrize(
    ("at", "why"),
    [
        (ServicePort(ASKS.hostname, 8000), ""),
        (ServicePort(ASKS.hostname, 8000, "auth"), ""),
        (ServicePort(ASKS.hostname, 8000, "shop"), f"there is no service shop/{ASKS.hostname}:8000"),
        (ServicePort(ASKS.hostname, 80), f"{ASKS.key} has no port 80"),
        (ServicePort("nobody", 80), "there is no service nobody:80"),
    ],
)
def test_an_authorizer_is_a_port_of_a_service(at: ServicePort, why: str) -> None:
    provider = ExtAuthz(Speech.GRPC, at)
    found = authorizer_of(world_of(ASKS, ExtensionProvider("a", provider)), "a")
    assert found == (f"the provider 'a': {why}" if why else Authorizer("a", provider, ASKS))


def test_what_is_no_authorizer_is_said() -> None:
    world = world_of(ExtensionProvider("m", Prometheus()))
    assert authorizer_of(world, "m") == "the provider 'm' is no authorizer"
    assert authorizer_of(world, "a") == "there is no provider of the name 'a' (extensionProviders)"
