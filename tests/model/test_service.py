"""The keys of services."""

from __future__ import annotations

from tests.builders import service
from ztunnel.model.service import Port, ServiceName


def test_a_service_is_known_by_namespace_and_hostname() -> None:
    web = service("web", "shop")
    assert web.key == ServiceName("shop", "web.shop.svc.cluster.local") == ("shop", web.hostname)
    assert str(web.key) == "shop/web.shop.svc.cluster.local"


def test_names_are_in_order() -> None:
    names = [ServiceName("b", "a"), ServiceName("a", "b"), ServiceName("a", "a")]
    assert sorted(names) == [("a", "a"), ("a", "b"), ("b", "a")]


def test_a_port_leads_somewhere() -> None:
    assert service("web").port(80, 8080).ports == (Port(80, 8080),)
    assert service("web").port(80, 0).ports[0].target == 0
