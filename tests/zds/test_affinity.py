"""Endpoints that a pod keeps of a service."""

from __future__ import annotations

from ztunnel.model.address import parse_endpoint
from ztunnel.zds.affinity import AffinityTable

VIP, OTHER, ONE, TWO = map(parse_endpoint, ("10.96.0.1:80", "[fd00::1]:80", "10.0.0.1:8080", "10.0.0.2:8080"))
SECOND = 1_000_000_000


def test_a_pod_keeps_its_endpoint_until_it_has_not_called_for_so_long() -> None:
    table = AffinityTable()
    table.keep(7, VIP, ONE, 0)
    assert table.kept(7, VIP, 10, 9 * SECOND) == ONE
    assert table.kept(7, VIP, 10, 10 * SECOND) is None
    table.keep(7, VIP, TWO, 9 * SECOND)
    assert table.kept(7, VIP, 10, 18 * SECOND) == TWO


def test_pods_and_services_keep_their_own() -> None:
    table = AffinityTable()
    table.keep(7, VIP, ONE, 0)
    assert table.kept(8, VIP, 10, 0) is None
    assert table.kept(7, OTHER, 10, 0) is None


def test_of_too_many_the_one_goes_that_was_not_used_for_longest() -> None:
    table = AffinityTable(limit=2)
    table.keep(1, VIP, ONE, 0)
    table.keep(2, VIP, ONE, 0)
    table.keep(1, VIP, ONE, 1)
    table.keep(3, VIP, ONE, 2)
    assert [table.kept(pod, VIP, 10, 2) for pod in (1, 2, 3)] == [ONE, None, ONE]
