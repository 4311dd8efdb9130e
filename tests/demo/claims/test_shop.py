from ipaddress import IPv6Address

import pytest

from ztunnel.demo.claims.shop import Shop
from ztunnel.demo.failure import LaboratoryFailed

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_pods_and_services_are_found_by_name_in_both_families(shop: Shop) -> None:
    assert shop.pod("orders-2").ip.version == 4
    assert shop.pod("orders-2", IPv6Address).ip.version == 6
    assert shop.vip("orders").port == 80
    assert shop.nodes == ("node-1", "node-2")


def test_what_does_not_come_is_named(shop: Shop) -> None:
    with pytest.raises(LaboratoryFailed, match="not within 0 s: the moon"):
        shop.until("the moon", lambda: False, seconds=0.0)


def test_a_figure_is_what_it_is_when_it_reaches_what_is_expected_or_never_does(shop: Shop) -> None:
    figures = iter((1, 2, 3, *[4] * 10_000))
    assert shop.reaches(lambda: next(figures), 3) == 3
    assert shop.reaches(lambda: next(figures), 9) == 4


def test_the_mesh_is_off_and_on_at_every_node(shop: Shop) -> None:
    assert shop.set_mesh("none") < 10.0
    assert shop.set_mesh("ambient") < 10.0
    states = [each["state"] for node in shop.nodes for each in shop.dump(node)["workloadState"].values()]
    assert states == ["Up"] * 7


def test_a_caller_is_started_once_and_may_leave(shop: Shop) -> None:
    caller = shop.caller("orders-3")
    assert shop.caller("orders-3") is caller
    shop.leave("orders-3")
    assert shop.caller("orders-3") is not caller
    shop.leave("orders-3")
