"""Names that an operator writes, and what they mean in a world."""

from __future__ import annotations

import pytest

from tests.builders import service, workload, world_of
from ztunnel.explain.names import Unknown, find_call
from ztunnel.model.address import parse_endpoint
from ztunnel.model.workload import WorkloadKind

WEB = service("web", "shop").at("10.96.0.1", "fd00:96::1").port(80, 8080)
TWO = service("two", "shop").at("10.96.0.2").port(80).port(443)
HEADLESS = service("silent", "shop").port(80)
CLIENT = workload("client", "shop").at("10.0.0.1").hbone()
SIX = workload("six", "shop").at("fd00::6").hbone()
POD = (
    workload("web-1", "shop")
    .at("10.0.1.1")
    .hbone()
    .serves(WEB, (80, 8080))
    .owned_by(WorkloadKind.DEPLOYMENT, "web")
)
OTHER = workload("client", "bank").at("10.0.9.9")
WORLD = world_of(WEB, TWO, HEADLESS, CLIENT, SIX, POD, OTHER)


@pytest.mark.parametrize(
    ("source", "destination", "where"),
    [
        ("shop/client", "web.shop:80", "10.96.0.1:80"),
        ("shop/client", "web", "10.96.0.1:80"),
        ("shop/client", "web.shop.svc:80", "10.96.0.1:80"),
        ("shop/client", "web.shop.svc.cluster.local:81", "10.96.0.1:81"),
        ("shop/client", "shop/web", "10.96.0.1:80"),
        ("shop/six", "web.shop", "[fd00:96::1]:80"),
        ("shop/client", "shop/web-1", "10.0.1.1:8080"),
        ("shop/client", "web-1:9", "10.0.1.1:9"),
        ("10.0.0.1", "10.96.0.1:80", "10.96.0.1:80"),
        ("192.0.2.1", "web.shop", "10.96.0.1:80"),
        ("fd00::6", "[fd00:96::1]:80", "[fd00:96::1]:80"),
        ("bank/client", "web.shop:80", "10.96.0.1:80"),
    ],
)
def test_names_and_addresses_are_found(source: str, destination: str, where: str) -> None:
    assert find_call(WORLD, source, destination).destination == parse_endpoint(where)


def test_a_source_that_nobody_knows_stays_an_address() -> None:
    assert str(find_call(WORLD, "192.0.2.1", "web.shop").source) == "192.0.2.1"


def test_an_owner_means_one_of_its_pods() -> None:
    assert find_call(WORLD, "shop/web", "shop/client:1").source == POD


@pytest.mark.parametrize(
    ("source", "destination", "said"),
    [
        ("client", "web.shop", "'client' is in several namespaces; there are: bank/client, shop/client"),
        ("shop/nobody", "web.shop", "no pod 'shop/nobody'; there are: bank/client, shop/client,"),
        ("shop/client", "wep.shop", "no service and no pod 'wep.shop'; there are: silent.shop, two.shop"),
        ("shop/client", "two.shop", "which port of two.shop? Write two.shop:PORT (there are: 80, 443)"),
        ("shop/client", "shop/six", "(there are: none is known)"),
        ("shop/client", "silent.shop", "shop/silent has no address: call one of its pods"),
        ("shop/client", "web.shop:0", "no port 0"),
        ("shop/client", "web.shop:99999", "no port 99999"),
    ],
)
def test_what_cannot_be_told_is_said_with_what_there_is(source: str, destination: str, said: str) -> None:
    with pytest.raises(Unknown) as caught:
        find_call(WORLD, source, destination)
    assert said in str(caught.value)
