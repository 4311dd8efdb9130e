"""The balancer: who may be chosen, how often, and why nobody."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import BuiltService, BuiltWorkload, original, service, workload, world_of
from ztunnel.model.address import Endpoint, parse_endpoint
from ztunnel.model.service import IpFamilies, LoadBalancing, Scope
from ztunnel.state.balancer import choose, honour, shares, why_none
from ztunnel.state.delta import apply
from ztunnel.state.world import Served

WEB = service("web").at("10.96.0.1").port(80, 8080)
VIP = original("10.96.0.1:80")
CLIENT = workload("client").on("n1").located("r1", "z1", "s1")


def serving(target: BuiltService, *pods: BuiltWorkload) -> Served:
    """The record of a service that these pods serve."""
    return world_of(target, *(pod.serves(target) for pod in pods)).served[target.key]


def names(served: Served, source: BuiltWorkload = CLIENT) -> set[str]:
    """Whom `choose` chooses at all."""
    rng = Random(1)
    chosen = (choose(served, VIP, source, rng) for _ in range(200))
    return {choice.workload.name for choice in chosen if choice}


def test_each_endpoint_is_chosen_in_proportion_to_its_capacity() -> None:
    served = serving(WEB, workload("a").weighing(1), workload("b").weighing(3), workload("c").weighing(0))
    rng = Random(7)
    counts = Counter(
        choice.workload.name for _ in range(4000) if (choice := choose(served, VIP, CLIENT, rng))
    )
    assert set(counts) == {"a", "b"}
    assert 0.22 < counts["a"] / 4000 < 0.28


def many(count: int) -> list[BuiltWorkload]:
    """Endpoints of capacities 1 to 3, every fourth of them not to be used."""
    pods = [workload(f"w{n:02}").serves(WEB).weighing(1 + n % 3) for n in range(count)]
    return [pod.unhealthy() if n % 4 == 0 else pod for n, pod in enumerate(pods)]


def test_many_endpoints_are_chosen_by_the_same_shares_without_looking_at_each() -> None:
    served = world_of(WEB, *many(24)).served[WEB.key]
    rng, total = Random(3), 12_000
    drawn = Counter(choice.endpoint for _ in range(total) if (choice := choose(served, VIP, CLIENT, rng)))
    weights = dict(shares(served, VIP, CLIENT))
    assert drawn.keys() == weights.keys()
    assert sum(drawn.values()) == total
    for endpoint, weight in weights.items():
        expected = total * weight / sum(weights.values())
        assert abs(drawn[endpoint] - expected) < 5 * expected**0.5


def test_one_usable_endpoint_among_many_is_found() -> None:
    pods = [workload(f"w{n:02}").unhealthy() for n in range(50)]
    assert names(serving(WEB, *pods, workload("well"))) == {"well"}
    assert names(serving(WEB, *pods)) == set()


def test_a_capacity_that_is_gone_does_not_bend_the_shares() -> None:
    heavy = workload("heavy").serves(WEB).weighing(1000)
    world, _ = apply(world_of(WEB, heavy, *many(24)), (), [heavy.uid])
    served = world.served[WEB.key]
    assert served.most == 1000
    rng = Random(5)
    drawn = Counter(
        choice.workload.capacity for _ in range(3000) if (choice := choose(served, VIP, CLIENT, rng))
    )
    assert sum(drawn.values()) == 3000
    assert abs(drawn[1] / 3000 - 1 / 6) < 0.04


def test_a_choice_carries_the_pods_own_address_and_port() -> None:
    choice = choose(serving(WEB, workload("a").at("10.0.0.1")), VIP, CLIENT, Random(1))
    assert choice
    assert choice.endpoint == parse_endpoint("10.0.0.1:8080")


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_shares_are_the_distribution_of_choices(capacities: list[int], rng: Random) -> None:
    served = serving(WEB, *(workload(f"w{n}").weighing(each) for n, each in enumerate(capacities)))
    weights = dict(shares(served, VIP, CLIENT))
    assert sorted(weights.values()) == sorted(each for each in capacities if each)
    for _ in range(20):
        choice = choose(served, VIP, CLIENT, rng)
        assert (choice is None) == (not weights)
        assert choice is None or choice.endpoint in weights


class Last:
    """A source of chance at its upper end."""

    def random(self) -> float:
        """The greatest number below 1."""
        return 1 - 2**-53


def test_the_greatest_chance_still_chooses_somebody() -> None:
    served = serving(WEB, *(workload(f"w{n}").weighing(2**31 - 1) for n in range(5)))
    assert choose(served, VIP, CLIENT, Last()) is not None


def test_two_pods_at_one_endpoint_have_one_share_of_both_weights() -> None:
    served = serving(WEB, workload("a").at("10.0.0.1"), workload("b").at("10.0.0.1").weighing(2))
    assert shares(served, VIP, CLIENT) == ((parse_endpoint("10.0.0.1:8080"), 3),)


@pytest.mark.parametrize(
    "kept_back", [WEB.through("10.0.0.9"), WEB.balanced(LoadBalancing.PASSTHROUGH), service("web")]
)
def test_the_kernel_has_nothing_to_pick_where_no_endpoint_is_called_as_it_is(kept_back: BuiltService) -> None:
    assert shares(serving(kept_back, workload("a")), VIP, CLIENT) == ()


NEAR = workload("near").on("n1").located("r1", "z1", "s1")
ZONE = workload("zone").on("n2").located("r1", "z1", "s2")
REGION = workload("region").on("n3").located("r1", "z2", "s1")
FAR = workload("far").on("n4").located("r2", "z1", "s1")
ALL = (NEAR, ZONE, REGION, FAR)
PLACES = (Scope.REGION, Scope.ZONE, Scope.SUBZONE, Scope.NODE)


@pytest.mark.parametrize(
    ("mode", "scopes", "pods", "expected"),
    [
        (LoadBalancing.STANDARD, PLACES, ALL, {"near", "zone", "region", "far"}),
        (LoadBalancing.STRICT, (), ALL, {"near", "zone", "region", "far"}),
        (LoadBalancing.STRICT, (Scope.NODE,), ALL, {"near"}),
        (LoadBalancing.STRICT, (Scope.REGION,), ALL, {"near", "zone", "region"}),
        (LoadBalancing.STRICT, PLACES, (ZONE, FAR), set()),
        (LoadBalancing.FAILOVER, PLACES, ALL, {"near"}),
        (LoadBalancing.FAILOVER, PLACES, (ZONE, REGION, FAR), {"zone"}),
        (LoadBalancing.FAILOVER, PLACES, (REGION, FAR), {"region"}),
        (LoadBalancing.FAILOVER, PLACES, (FAR,), {"far"}),
        (LoadBalancing.FAILOVER, (Scope.ZONE, Scope.REGION), (REGION, FAR), {"far"}),
        (LoadBalancing.FAILOVER, (Scope.CLUSTER,), (NEAR.in_cluster("other"), FAR), {"far"}),
        (LoadBalancing.FAILOVER, (Scope.NETWORK, Scope.NODE), ALL, {"near"}),
    ],
)
def test_scopes_bind_or_prefer(
    mode: LoadBalancing, scopes: tuple[Scope, ...], pods: tuple[BuiltWorkload, ...], expected: set[str]
) -> None:
    assert names(serving(WEB.balanced(mode, *scopes), *pods)) == expected


def test_sources_of_different_places_choose_differently_from_one_record() -> None:
    served = serving(WEB.balanced(LoadBalancing.FAILOVER, *PLACES), *ALL)
    assert names(served) == {"near"}
    assert names(served, CLIENT.on("n4").located("r2", "z1", "s1")) == {"far"}


def test_the_unhealthy_are_left_out_unless_the_service_takes_them() -> None:
    pods = workload("a"), workload("b").unhealthy()
    assert names(serving(WEB, *pods)) == {"a"}
    assert names(serving(WEB.with_unhealthy(), *pods)) == {"a", "b"}


def test_those_that_terminate_serve_where_nobody_else_does() -> None:
    ending = workload("e").ending(), workload("f").ending()
    assert names(serving(WEB, *ending)) == {"e", "f"}
    assert names(serving(WEB, *ending, workload("b").unhealthy())) == {"e", "f"}
    assert names(serving(WEB, *ending, workload("a"))) == {"a"}
    assert names(serving(WEB, *ending, workload("a").in_network("far"))) == {"e", "f"}
    assert dict(shares(serving(WEB, *ending), VIP, CLIENT)).keys() == {
        Endpoint(each.addresses[0], 8080) for each in ending
    }


def test_of_those_that_terminate_all_serve_wherever_they_are_unless_the_node_binds() -> None:
    near, far = workload("near").on("n1").ending(), workload("far").on("n2").ending()
    preferring = WEB.balanced(LoadBalancing.FAILOVER, Scope.NODE)
    assert names(serving(preferring, near, far)) == {"near", "far"}
    assert names(serving(preferring, near, far, workload("ready").on("n3"))) == {"ready"}
    binding = WEB.balanced(LoadBalancing.STRICT, Scope.NODE)
    assert names(serving(binding, near, far, workload("ready").on("n3"))) == {"near"}


def test_a_pick_of_one_that_terminates_is_honoured_where_nobody_else_serves() -> None:
    pods = [workload(f"w{n}").at(f"10.0.1.{n}").serves(WEB).ending() for n in range(20)]
    pick = parse_endpoint("10.0.1.7:8080")
    world = world_of(WEB, *pods)
    choice = honour(world, world.served[WEB.key], VIP, CLIENT, pick)
    assert choice
    assert choice.workload.name == "w7"
    world = world_of(WEB, *pods, workload("ready").serves(WEB))
    assert honour(world, world.served[WEB.key], VIP, CLIENT, pick) is None


@pytest.mark.parametrize("count", [1, 12])
def test_an_address_of_the_family_that_was_called_goes_before(count: int) -> None:
    both = WEB.at("10.96.0.1", "fd00:96::1")
    pods = [workload(f"four{n}").at(f"10.0.1.{n}") for n in range(count)]
    pods += [workload(f"six{n}").at(f"fd00::{n}") for n in range(count)]
    world = world_of(both, *(pod.serves(both) for pod in pods))
    served = world.served[both.key]
    for vip, family in ((VIP, 4), (original("[fd00:96::1]:80"), 6)):
        rng = Random(5)
        found = {choice.endpoint for _ in range(300) if (choice := choose(served, vip, CLIENT, rng))}
        assert {endpoint.ip.version for endpoint in found} == {family}
        assert {endpoint for endpoint, _ in shares(served, vip, CLIENT)} == found
        other = next(
            endpoint
            for endpoint in map(parse_endpoint, ("[fd00::0]:8080", "10.0.1.0:8080"))
            if endpoint.ip.version != family
        )
        assert honour(world, served, vip, CLIENT, other) is None
    only = serving(both, workload("six").at("fd00::1"))
    assert names(only) == {"six"}


def test_what_binds_calls_to_a_node_does_not_bind_those_of_external_addresses() -> None:
    binding = WEB.at("10.96.0.1", "192.0.2.1").balanced(LoadBalancing.STRICT, Scope.NODE)
    served = serving(binding.reached_at("192.0.2.1"), workload("far").on("n2"))
    assert choose(served, VIP, CLIENT, Random(1)) is None
    choice = choose(served, original("192.0.2.1:80"), CLIENT, Random(1))
    assert choice
    assert choice.workload.name == "far"


def test_endpoints_of_another_network_are_left_out() -> None:
    assert names(serving(WEB, workload("a"), workload("b").in_network("far"))) == {"a"}


def test_an_endpoint_without_the_port_or_an_address_is_left_out() -> None:
    named = service("web").at("10.96.0.1").port(80, 0)
    a, b, c = workload("a").serves(named, (80, 9090)), workload("b").serves(named), workload("c").at()
    served = world_of(named, a, b, c.serves(named, 80)).served[named.key]
    assert names(served) == {"a"}


def test_a_pick_is_honoured_while_it_could_be_chosen() -> None:
    few = workload("a").at("10.0.0.1").serves(WEB), workload("b").at("10.0.0.2").unhealthy().serves(WEB)
    for pods in (few, (*few, *many(20)), (*few, workload("c").at("10.0.0.3"))):
        world = world_of(WEB, *pods)
        served = world.served[WEB.key]
        choice = honour(world, served, VIP, CLIENT, parse_endpoint("10.0.0.1:8080"))
        assert choice
        assert choice.workload.name == "a"
        for gone in ("10.0.0.2:8080", "10.0.0.1:80", "10.0.0.3:8080", "10.0.0.4:8080"):
            assert honour(world, served, VIP, CLIENT, parse_endpoint(gone)) is None


@pytest.mark.parametrize(
    ("target", "pods", "expected"),
    [
        (WEB, (), "default/web.default.svc.cluster.local has no endpoints"),
        (WEB, (workload("a").unhealthy(),), "none of the 1 endpoints of .* is healthy"),
        (WEB, (workload("a").in_network("far"),), "in other networks"),
        (service("web"), (workload("a"),), "serves port 80"),
        (WEB.balanced(LoadBalancing.STRICT, Scope.NODE), (FAR,), "in the source's scope"),
        (WEB.families(IpFamilies.IPV6_ONLY), (workload("a").at("10.0.0.1"),), "has an address"),
    ],
)
def test_nobody_has_a_reason(target: BuiltService, pods: tuple[BuiltWorkload, ...], expected: str) -> None:
    served = serving(target, *pods)
    assert choose(served, VIP, CLIENT, Random(1)) is None
    with pytest.raises(AssertionError, match=expected):
        raise AssertionError(why_none(served, VIP, CLIENT))


def test_endpoints_of_an_unknown_service_are_not_chosen() -> None:
    staged = world_of(workload("a").serves(WEB)).served[WEB.key]
    assert choose(staged, VIP, CLIENT, Random(1)) is None
    assert why_none(staged, VIP, CLIENT) == "the service is unknown"
    assert shares(staged, VIP, CLIENT) == ()


def test_what_is_remembered_for_a_service_is_bounded() -> None:
    served = serving(WEB, workload("a"))
    for port in range(1, 2000):
        choose(served, Endpoint(VIP.ip, port), CLIENT, Random(1))
    assert len(served.memo) <= 256
