"""delta.apply: the world after it, and what it says it touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import large_mesh, policy, service, workload, world_of
from ztunnel.model.http_policy import HttpAction, HttpPolicy
from ztunnel.model.labels import WorkloadLabels
from ztunnel.model.policy import Policy
from ztunnel.model.route import Routes, RouteSource, Rule
from ztunnel.model.route_action import DirectResponse
from ztunnel.model.service import Service, ServiceName
from ztunnel.model.service_traffic import ClientTraffic, ServiceTraffic
from ztunnel.model.traffic import UNSAID
from ztunnel.model.workload import Workload
from ztunnel.state.change import Change, merge
from ztunnel.state.delta import apply
from ztunnel.state.world import World

Item = Workload | Service | Policy | HttpPolicy | WorkloadLabels | Routes | ServiceTraffic
_HTTP = (HttpPolicy, WorkloadLabels, Routes, ServiceTraffic)

_SERVICES = [service(name, namespace) for name in "xy" for namespace in ("n", "m")]
_workloads = st.builds(
    lambda name, address, node, served, healthy: replace(
        workload(name).at(*address).on(node),
        services={each.key: () for each in served},
        healthy=healthy,
    ),
    st.sampled_from("abcd"),
    st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]), max_size=3),
    st.sampled_from(["", "n1", "n2"]),
    st.lists(st.sampled_from(_SERVICES), max_size=2),
    st.booleans(),
)
_services = st.builds(
    lambda known, address: known.at(*address),
    st.sampled_from(_SERVICES),
    st.lists(st.sampled_from(["10.96.0.1", "10.96.0.2"]), max_size=3),
)
_policies = st.builds(
    lambda name, namespace, scope, dry: getattr(replace(policy(name, namespace), dry_run=dry), scope)(),
    st.sampled_from("pq"),
    st.sampled_from("nm"),
    st.sampled_from(["everywhere", "selecting", "deny"]),
    st.booleans(),
)
_http_policies = st.builds(
    HttpPolicy, st.sampled_from("pq"), st.sampled_from("nm"), st.sampled_from(HttpAction)
)
_labels = st.builds(
    WorkloadLabels, st.sampled_from("pq"), st.frozensets(st.sampled_from([("a", "1"), ("b", "2")]))
)
_route = Rule("r", RouteSource("HTTPRoute", "n", "r"), DirectResponse(200))
_routes = st.builds(
    Routes,
    st.builds(ServiceName, st.sampled_from("nm"), st.sampled_from("pq")),
    st.sampled_from([(), (_route,)]),
)
_traffic = st.builds(
    ServiceTraffic,
    st.builds(ServiceName, st.sampled_from("nm"), st.sampled_from("pq")),
    st.sampled_from([(), (ClientTraffic("", UNSAID),)]),
)
_http = _http_policies | _labels | _routes | _traffic
_items = st.lists(_workloads | _services | _policies | _http, max_size=6)
_deltas = st.lists(st.tuples(_items, _items), max_size=6)


def _key(item: Item) -> str:
    return item.uid if isinstance(item, Workload) else str(item.key)


def _removals(items: Sequence[Item]) -> tuple[list[str], list[str], dict[type, list[str]]]:
    addresses = [_key(item) for item in items if isinstance(item, Workload | Service)]
    http = {kind: [_key(item) for item in items if isinstance(item, kind)] for kind in _HTTP}
    return addresses, [_key(item) for item in items if isinstance(item, Policy)], http


def _name(item: Item) -> tuple[str, str]:
    """A policy of waypoints may have the name of one of node proxies."""
    kind = "address" if isinstance(item, Workload | Service) else type(item).__name__
    return kind, _key(item)


@given(_deltas)
@settings(max_examples=150, deadline=None)
def test_any_history_gives_the_world_of_what_is_left(deltas: list[tuple[list[Item], list[Item]]]) -> None:
    world = World()
    left: dict[tuple[str, str], Item] = {}
    for upserts, removed in deltas:
        before = world
        world, change = apply(world, upserts, *_removals(removed))
        assert bool(change) == (world != before)
        for item in removed:
            left.pop(_name(item), None)
        left.update({_name(item): item for item in upserts})
    assert world == apply(World(), reversed(list(left.values())))[0]


@given(_items, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_any_order_of_deltas_gives_the_same_world(items: list[Item], rng) -> None:  # type: ignore[no-untyped-def]
    unique = list({_name(item): item for item in items}.values())
    shuffled = rng.sample(unique, len(unique))
    one_by_one = World()
    for item in shuffled:
        one_by_one, _ = apply(one_by_one, [item])
    assert one_by_one == world_of(*unique)


def test_removing_everything_leaves_an_empty_world() -> None:
    web = service("web").at("10.96.0.1")
    a, rule = workload("a").serves(web, 80).on("n1"), policy("p")
    world, change = apply(world_of(web, a, rule), (), [a.uid, str(web.key)], [rule.key])
    assert world == World()
    assert change.workloads == {a.uid}
    assert change.services == {web.key}
    assert change.policies == {rule.key}


def test_what_arrives_again_unchanged_is_no_change() -> None:
    items: list[Item] = [service("web").at("10.96.0.1"), workload("a"), policy("p")]
    world = world_of(*items)
    again, change = apply(world, [replace(item) for item in items])
    assert not change
    assert again == world
    assert change == Change()


def test_unknown_removals_are_ignored() -> None:
    world, change = apply(World(), (), ["c//Pod/n/a", "n/host", "nonsense"], ["n/p"])
    assert not change
    assert world == World()


def test_what_is_both_removed_and_sent_is_kept() -> None:
    a = workload("a")
    assert apply(world_of(a), [a], [a.uid])[0].workload(a.uid) is a


def test_a_removal_key_with_one_slash_is_a_service_with_more_a_workload() -> None:
    web = service("web", "n")
    pod = workload("web", "n")
    assert apply(world_of(web, pod), (), ["n/web.n.svc.cluster.local"])[0] == world_of(pod)
    assert apply(world_of(web, pod), (), ["Kubernetes//Pod/n/web"])[0] == world_of(web)


def test_a_service_that_goes_leaves_its_endpoints_staged() -> None:
    web = service("web").at("10.96.0.1")
    a = workload("a").serves(web, 80)
    world, change = apply(world_of(web, a), (), [str(web.key)])
    assert world == world_of(a)
    assert change.services == {web.key}
    assert not change.workloads


def test_a_world_is_never_changed_by_a_delta() -> None:
    a = workload("a").at("10.0.0.1")
    world = world_of(a)
    apply(world, [a.at("10.0.0.2"), service("web")], [a.uid])
    assert world == world_of(a)


def test_one_workload_more_or_less_costs_under_a_millisecond() -> None:
    mesh = large_mesh(20_000, 2_000)
    started = perf_counter()
    world = world_of(*mesh)
    whole = perf_counter() - started
    pods = [item for item in mesh if isinstance(item, Workload)][:100]
    taken = []
    for pod in pods:
        started = perf_counter()
        world, _ = apply(world, [replace(pod, healthy=False)])
        taken.append(perf_counter() - started)
    print(f"22,000 resources: {whole:.2f} s; one workload: {sorted(taken)[50] * 1e6:.0f} us")
    assert sorted(taken)[50] < 1e-3


@given(_items, _items, _items)
def test_slices_of_a_delta_give_the_same_world_and_touch_no_less(
    known: list[Item], one: list[Item], other: list[Item]
) -> None:
    before, _ = apply(World(), known)
    whole, change = apply(before, [*one, *other])
    first, changed_first = apply(before, one)
    second, changed_second = apply(first, other)
    assert second == whole
    merged = merge([changed_first, changed_second])
    for name in ("workloads", "reclassified", "addresses", "nodes", "services", "policies", "namespaces"):
        assert getattr(change, name) <= getattr(merged, name)
    assert change.everywhere <= merged.everywhere
