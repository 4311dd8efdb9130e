from ipaddress import IPv6Address

import pytest

from ztunnel.demo.claims.stage import Stage
from ztunnel.demo.failure import LaboratoryFailed

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_pods_and_services_are_found_by_name_in_both_families(stage: Stage) -> None:
    assert stage.pod("orders-2").ip.version == 4
    assert stage.pod("orders-2", IPv6Address).ip.version == 6
    assert stage.vip("orders").port == 80
    assert stage.nodes == ("node-1", "node-2")


def test_what_does_not_come_is_named(stage: Stage) -> None:
    with pytest.raises(LaboratoryFailed, match="not within 0 s: the moon"):
        stage.until("the moon", lambda: False, seconds=0.0)


def test_a_figure_is_what_it_is_when_it_reaches_what_is_expected_or_never_does(stage: Stage) -> None:
    figures = iter((1, 2, 3, *[4] * 10_000))
    assert stage.reaches(lambda: next(figures), 3) == 3
    assert stage.reaches(lambda: next(figures), 9) == 4


def test_the_mesh_is_off_and_on_at_every_node(stage: Stage) -> None:
    assert stage.set_mesh("none") < 10.0
    assert stage.set_mesh("ambient") < 10.0
    states = [each["state"] for node in stage.nodes for each in stage.dump(node)["workloadState"].values()]
    assert states == ["Up"] * 7


def test_a_caller_is_started_once_and_may_leave(stage: Stage) -> None:
    caller = stage.caller("orders-3")
    assert stage.caller("orders-3") is caller
    stage.leave("orders-3")
    assert stage.caller("orders-3") is not caller
    stage.leave("orders-3")
