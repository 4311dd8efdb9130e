"""Outbound decisions: one case for each way that a call can take."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import (
    BuiltWorkload,
    identity,
    large_mesh,
    original,
    policy,
    service,
    strict,
    workload,
    world_of,
)
from ztunnel.errors import Flag, NoDestination
from ztunnel.model.address import Endpoint, parse_endpoint
from ztunnel.model.policy import Policy
from ztunnel.model.service import LoadBalancing, Scope, Service
from ztunnel.model.workload import SameNode, Workload
from ztunnel.outbound.decision import Context, Outcome, ToDirect, ToPlain, ToTunnel, decide
from ztunnel.state.balancer import shares
from ztunnel.state.lookup import concerns

CLIENT = workload("client").at("10.0.0.1", "fd00::1").on("n1").hbone()
WEB = service("web").at("10.96.0.1").port(80, 8080)
FAR = workload("far").at("10.0.1.1").on("n2").hbone().serves(WEB)
NEAR = workload("near").at("10.0.0.2").on("n1").hbone().serves(WEB)
OLD = workload("old").at("10.0.2.1").on("n2").serves(WEB)
GATE = service("gate").at("10.96.0.9").port(15008).proving("spiffe://cluster.local/ns/default/sa/gates")
GATE_POD = workload("gate-1").at("10.0.1.9").on("n2").native().serves(GATE)
CONTEXT = Context("n1", Random(1))
DIRECT = replace(CONTEXT, direct_available=True)


def go(
    destination: str,
    *items: Workload | Service | Policy,
    source: BuiltWorkload = CLIENT,
    context: Context = CONTEXT,
) -> Outcome:
    """Decide in a world of the source and these."""
    return decide(world_of(source, *items), source, original(destination), context)


def refusal(destination: str, *items: Workload | Service | Policy, source: BuiltWorkload = CLIENT) -> str:
    """Why it is refused."""
    with pytest.raises(NoDestination) as caught:
        go(destination, *items, source=source)
    assert caught.value.flag is Flag.CONNECT
    return str(caught.value)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "[::1]", "10.0.0.1", "[fd00::1]"])
@pytest.mark.parametrize("port", [15001, 15006, 15008])
def test_a_call_to_our_own_listeners_is_refused(address: str, port: int) -> None:
    assert refusal(f"{address}:{port}") == "attempted recursive call to ourselves"


def test_the_ports_of_our_listeners_are_free_to_call_elsewhere() -> None:
    assert go("10.9.9.9:15001") == ToPlain(parse_endpoint("10.9.9.9:15001"), None, None)


def test_nobody_we_know_is_called_as_it_is() -> None:
    assert go("93.184.216.34:443") == ToPlain(parse_endpoint("93.184.216.34:443"), None, None)


def test_a_service_in_passthrough_mode_is_called_as_it_is() -> None:
    web = WEB.balanced(LoadBalancing.PASSTHROUGH)
    assert go("10.96.0.1:81", web, FAR) == ToPlain(parse_endpoint("10.96.0.1:81"), None, web)


def test_a_pod_in_the_mesh_is_reached_by_a_tunnel_to_its_own_address() -> None:
    outcome = go("10.0.1.1:8080", FAR)
    assert outcome == ToTunnel(
        parse_endpoint("10.0.1.1:15008"),
        parse_endpoint("10.0.1.1:8080"),
        (identity("default/far"),),
        FAR,
        None,
    )
    assert isinstance(outcome, ToTunnel)
    assert outcome.authority == "10.0.1.1:8080"


def test_an_authority_has_ipv6_in_brackets() -> None:
    outcome = go("[fd00::9]:80", FAR.at("fd00::9"))
    assert isinstance(outcome, ToTunnel)
    assert outcome.authority == "[fd00::9]:80"


def test_a_service_is_reached_at_an_endpoints_target_port_and_by_its_names_too() -> None:
    web = WEB.proving("spiffe://cluster.local/ns/default/sa/web", "web.example.org")
    assert go("10.96.0.1:80", web, FAR) == ToTunnel(
        parse_endpoint("10.0.1.1:15008"),
        parse_endpoint("10.0.1.1:8080"),
        (identity("default/far"), identity("default/web")),
        FAR,
        web,
    )


def test_a_pod_outside_of_the_mesh_is_reached_in_plaintext_with_its_port_translated() -> None:
    assert go("10.96.0.1:80", WEB, OLD) == ToPlain(parse_endpoint("10.0.2.1:8080"), OLD, WEB)
    assert go("10.0.2.1:9999", WEB, OLD) == ToPlain(parse_endpoint("10.0.2.1:9999"), OLD, None)


def test_a_service_without_a_usable_endpoint_is_refused_with_the_reason() -> None:
    key = "default/web.default.svc.cluster.local"
    assert refusal("10.96.0.1:80", WEB) == f"no healthy upstream: 10.96.0.1:80 ({key} has no endpoints)"
    assert "none of the 1 endpoints" in refusal("10.96.0.1:80", WEB, FAR.unhealthy())
    assert "serves port 81" in refusal("10.96.0.1:81", WEB, FAR)
    strict_scope = WEB.balanced(LoadBalancing.STRICT, Scope.NODE)
    assert "in the source's scope" in refusal("10.96.0.1:80", strict_scope, FAR)


def test_an_address_of_a_pod_and_of_a_service_without_endpoints_is_refused_not_sent_in_plaintext() -> None:
    same = service("same").at("10.0.1.1").port(80)
    assert refusal("10.0.1.1:80", same, FAR).startswith("no healthy upstream")


def test_a_service_at_a_pods_address_is_balanced() -> None:
    same = service("same").at("10.0.1.1").port(80, 8080)
    outcome = go("10.0.1.1:80", same, FAR.serves(same))
    assert isinstance(outcome, ToTunnel)
    assert outcome.authority == "10.0.1.1:8080"


def test_a_service_with_a_waypoint_is_reached_through_it_by_what_was_called() -> None:
    bound = WEB.through(GATE)
    assert go("10.96.0.1:80", bound, GATE, GATE_POD, FAR) == ToTunnel(
        parse_endpoint("10.0.1.9:15008"),
        parse_endpoint("10.96.0.1:80"),
        (identity("default/gate-1"), identity("default/gates")),
        GATE_POD,
        bound,
        waypoint=True,
    )


@pytest.mark.parametrize("address", ["10.96.0.9", "10.0.1.9"])
def test_a_waypoint_may_be_given_by_the_address_of_its_service_or_pod(address: str) -> None:
    outcome = go("10.96.0.1:80", WEB.through(address), GATE, GATE_POD, FAR)
    assert isinstance(outcome, ToTunnel)
    assert outcome.endpoint == parse_endpoint("10.0.1.9:15008")
    assert outcome.identities[0] == identity("default/gate-1")
    assert outcome.waypoint


def test_a_waypoint_may_listen_elsewhere() -> None:
    outcome = go("10.96.0.1:80", WEB.through("10.0.1.9", 15009), GATE_POD)
    assert isinstance(outcome, ToTunnel)
    assert outcome.endpoint == parse_endpoint("10.0.1.9:15009")


def test_a_waypoint_that_is_unknown_or_has_no_endpoint_refuses() -> None:
    text = "unknown waypoint: default/gate.default.svc.cluster.local"
    assert refusal("10.96.0.1:80", WEB.through(GATE), FAR) == f"{text} has not been received"
    assert refusal("10.96.0.1:80", WEB.through(GATE), GATE, FAR).startswith(f"{text}: ")
    unknown = "unknown waypoint: 10.7.7.7 has not been received"
    assert refusal("10.96.0.1:80", WEB.through("10.7.7.7"), FAR) == unknown
    assert refusal("10.0.1.1:80", FAR.through("10.7.7.7")) == unknown


CANARY = service("canary").at("10.96.0.8").port(15008)
CANARY_POD = workload("canary-1").at("10.0.1.8").on("n2").native().serves(CANARY)


@pytest.mark.parametrize(
    ("weights", "least", "most"),
    [((90, 10), 60, 140), ((0, 100), 1000, 1000), ((100, 0), 0, 0), ((0, 0), 0, 0)],
)
def test_waypoints_share_a_services_connections_by_their_weights(
    weights: tuple[int, int], least: int, most: int
) -> None:
    first, other = weights
    world = world_of(
        CLIENT, WEB.shared_by((GATE, first), (CANARY, other)), GATE, GATE_POD, CANARY, CANARY_POD, FAR
    )
    context = replace(CONTEXT, rng=Random(7))
    outcomes = [decide(world, CLIENT, original("10.96.0.1:80"), context) for _ in range(1000)]
    found = Counter(each.destination.name for each in outcomes if isinstance(each, ToTunnel))
    assert found.total() == 1000
    assert least <= found["canary-1"] <= most
    for waypoint in (GATE_POD, CANARY_POD):  # what either of them sends has passed it
        outcome = decide(world, world.workload(waypoint.uid), original("10.96.0.1:80"), context)
        assert outcome.destination == FAR


def test_a_weighted_waypoint_that_is_unknown_refuses_its_share() -> None:
    asked = refusal("10.96.0.1:80", WEB.shared_by((GATE, 0), (CANARY, 1)), GATE, GATE_POD, FAR)
    assert asked == "unknown waypoint: default/canary.default.svc.cluster.local has not been received"


def test_a_pod_with_a_waypoint_is_reached_through_it_by_its_own_address_only() -> None:
    bound = FAR.through(GATE)
    by_address = go("10.0.1.1:8080", bound, GATE, GATE_POD)
    assert isinstance(by_address, ToTunnel)
    assert (by_address.destination, by_address.authority) == (GATE_POD, "10.0.1.1:8080")
    assert by_address.service is None
    by_service = go("10.96.0.1:80", WEB, bound, GATE, GATE_POD)
    assert isinstance(by_service, ToTunnel)
    assert by_service.destination is bound


def test_a_waypoints_own_calls_do_not_pass_through_it_again() -> None:
    gate = GATE_POD.on("n1")
    for destination in ("10.96.0.1:80", "10.0.1.1:8080"):
        outcome = go(destination, WEB.through(GATE), FAR.through(GATE), GATE, source=gate)
        assert isinstance(outcome, ToTunnel)
        assert outcome.destination.name == "far"
        assert not outcome.waypoint


def test_two_pods_of_this_node_in_the_mesh_talk_directly() -> None:
    assert go("10.0.0.2:8080", NEAR, context=DIRECT) == ToDirect(parse_endpoint("10.0.0.2:8080"), NEAR, None)
    assert go("10.96.0.1:80", WEB, NEAR, context=DIRECT) == ToDirect(
        parse_endpoint("10.0.0.2:8080"), NEAR, WEB
    )


@pytest.mark.parametrize(
    ("source", "destination", "context", "kind"),
    [
        (CLIENT, NEAR, CONTEXT, ToTunnel),
        (CLIENT, NEAR.on("n2"), DIRECT, ToTunnel),
        (CLIENT.on("n3"), NEAR.on("n3"), DIRECT, ToTunnel),
        (CLIENT, NEAR.plain(), DIRECT, ToPlain),
        (CLIENT.plain(), NEAR, DIRECT, ToTunnel),
        (CLIENT, NEAR.native(), DIRECT, ToTunnel),
        (CLIENT, NEAR.through(GATE), DIRECT, ToTunnel),
        (CLIENT, NEAR.selected_by(strict()), DIRECT, ToTunnel),
        (CLIENT, NEAR.selected_by(strict()), replace(DIRECT, same_node=SameNode.DIRECT), ToDirect),
        (CLIENT, NEAR.selected_by(strict()).same_node_mode(SameNode.DIRECT), DIRECT, ToDirect),
        (CLIENT.same_node_mode(SameNode.DIRECT), NEAR.selected_by(strict()), DIRECT, ToTunnel),
        (CLIENT, NEAR.same_node_mode(SameNode.MTLS), DIRECT, ToTunnel),
        (CLIENT.same_node_mode(SameNode.MTLS), NEAR, DIRECT, ToTunnel),
        (CLIENT, NEAR.same_node_mode(SameNode.DIRECT), replace(DIRECT, same_node=SameNode.MTLS), ToTunnel),
        (CLIENT, CLIENT, DIRECT, ToDirect),
    ],
)
def test_direct_is_only_where_node_mesh_and_mode_agree(
    source: BuiltWorkload, destination: BuiltWorkload, context: Context, kind: type
) -> None:
    called = f"{destination.addresses[0]}:8080"
    outcome = go(called, destination, strict(), GATE, GATE_POD, source=source, context=context)
    assert isinstance(outcome, kind)


def test_a_pod_with_a_waypoint_is_not_direct_even_when_called_through_a_service() -> None:
    outcome = go("10.96.0.1:80", WEB, NEAR.through(GATE), GATE, GATE_POD, context=DIRECT)
    assert isinstance(outcome, ToTunnel)
    assert outcome.destination.name == "near"


def test_an_endpoint_that_is_not_the_pod_at_its_address_is_not_direct() -> None:
    entry = NEAR.identified_by("c/networking.istio.io/WorkloadEntry/default/near")
    pod = workload("pod").at("10.0.0.2").on("n1").hbone()
    assert isinstance(go("10.96.0.1:80", WEB, entry, pod, context=DIRECT), ToTunnel)
    assert isinstance(go("10.96.0.1:80", WEB, entry, context=DIRECT), ToDirect)


def test_policy_is_not_asked_here() -> None:
    assert isinstance(go("10.0.0.2:8080", NEAR, policy("p"), context=DIRECT), ToDirect)


def test_the_kernels_pick_is_honoured_while_the_balancer_could_choose_it() -> None:
    pick = parse_endpoint("10.0.0.2:8080")
    for seed in range(10):
        outcome = go("10.96.0.1:80", WEB, FAR, NEAR, context=Context("n1", Random(seed), pick=pick))
        assert isinstance(outcome, ToTunnel)
        assert outcome.target == pick
    outcome = go("10.96.0.1:80", WEB, FAR, NEAR.unhealthy(), context=replace(CONTEXT, pick=pick))
    assert isinstance(outcome, ToTunnel)
    assert outcome.destination is FAR


def test_picks_by_weight_and_choices_give_the_same_shares() -> None:
    world = world_of(CLIENT, WEB, FAR.weighing(1), NEAR.weighing(3))
    weights = dict(shares(world.served[WEB.key], original("10.96.0.1:80"), CLIENT))
    seen: Counter[object] = Counter()
    for _ in range(2000):
        outcome = decide(world, CLIENT, original("10.96.0.1:80"), CONTEXT)
        assert isinstance(outcome, ToTunnel)
        seen[outcome.target] += 1
    assert weights == {parse_endpoint("10.0.1.1:8080"): 1, parse_endpoint("10.0.0.2:8080"): 3}
    assert 0.2 < seen[parse_endpoint("10.0.1.1:8080")] / 2000 < 0.3


def test_of_two_services_at_one_address_the_clients_own_is_meant() -> None:
    theirs = service("aaa", "a-first").at("10.96.0.1").port(80)
    outcome = go("10.96.0.1:80", theirs, WEB, FAR)
    assert isinstance(outcome, ToTunnel)
    assert outcome.service is WEB


def test_a_service_of_another_namespace_alone_is_nobodys() -> None:
    theirs = service("aaa", "a-first").at("10.96.0.1").port(80).hidden()
    assert go("10.96.0.1:80", theirs) == ToPlain(parse_endpoint("10.96.0.1:80"), None, None)


def test_an_external_address_is_a_services_at_its_ports_and_somebody_elses_at_others() -> None:
    web = WEB.at("10.96.0.1", "192.0.2.1").reached_at("192.0.2.1")
    found = go("192.0.2.1:80", web, FAR)
    assert isinstance(found, ToTunnel)
    assert str(found.target) == "10.0.1.1:8080"
    assert go("192.0.2.1:22", web, FAR) == ToPlain(parse_endpoint("192.0.2.1:22"), None, None)
    assert "serves port 22" in refusal("10.96.0.1:22", web, FAR)


def test_a_pod_whose_network_is_not_this_nodes_is_refused() -> None:
    text = refusal("10.0.1.1:8080", FAR, source=CLIENT.in_network("net-2"))
    assert text == "the pod is in network 'net-2', this node in ''"


def test_a_decision_costs_under_50_microseconds() -> None:
    mesh = large_mesh(20_000, 2_000)
    world = world_of(*mesh)
    source = next(item for item in mesh if isinstance(item, Workload))
    context = Context(source.node, Random(1), direct_available=True)
    targets = [original(f"172.0.{n // 256}.{n % 256}:80") for n in range(0, 1000, 10)]
    taken = []
    for _ in range(5):
        started = perf_counter()
        for target in targets:
            decide(world, source, target, context)
        taken.append((perf_counter() - started) / len(targets))
    print(f"a decision: {max(taken) * 1e6:.1f} us the first time, {min(taken) * 1e6:.1f} us after")
    assert min(taken) < 50e-6


# --- what the kernel may leave alone

PLACES = ["10.0.0.1", "10.0.0.2", "10.0.1.1", "fd00::1", "10.96.0.1"]
SOMEWHERE = st.lists(st.sampled_from(PLACES), max_size=2, unique=True)
ANY_WORKLOAD = st.builds(
    lambda name, at, change: change(workload(name).at(*at)),
    st.sampled_from("abc"),
    SOMEWHERE,
    st.sampled_from(
        [
            lambda it: it.hbone().on("n1"),
            lambda it: it.hbone().serves(WEB),
            lambda it: it.plain().serves(WEB),
            lambda it: it.plain().through(GATE),
            lambda it: it.hbone().through("10.0.1.1"),
            lambda it: it.native(),
            lambda it: it.hbone().host_networked(),
            lambda it: it.hbone().in_network("elsewhere"),
        ]
    ),
)
ANY_SERVICE = st.builds(
    lambda one, at, mode: replace(one.at(*at), load_balancing=mode),
    st.sampled_from([WEB, GATE, WEB.through(GATE)]),
    SOMEWHERE,
    st.sampled_from(LoadBalancing),
)


@given(st.lists(ANY_WORKLOAD | ANY_SERVICE, max_size=5), st.sampled_from(PLACES), st.booleans())
@settings(max_examples=300, deadline=None)
def test_what_does_not_concern_the_mesh_goes_where_the_application_wanted_to_go(
    items: list[Workload | Service], at: str, direct: bool
) -> None:
    source = workload("source").at("10.0.9.9").on("n1").hbone()
    world = world_of(source, *items)
    called = original(f"[{at}]:80" if ":" in at else f"{at}:80")
    if not concerns(world, called.ip):
        found = decide(world, source, called, replace(CONTEXT, direct_available=direct))
        assert found == ToPlain(Endpoint(called.ip, 80), world.by_ip(called.ip), None)


INGRESS = replace(CLIENT, gateway=True)
GATED = replace(WEB.through(GATE), ingress_uses_waypoint=True)


@pytest.mark.parametrize(("context", "pod"), [(CONTEXT, FAR), (DIRECT, NEAR)])
def test_a_gateway_that_chooses_an_endpoint_itself_is_led_through_its_services_waypoint(
    context: Context, pod: BuiltWorkload
) -> None:
    called = f"{pod.addresses[0]}:8080"
    outcome = go(called, GATED, GATE, GATE_POD, pod, source=INGRESS, context=context)
    assert isinstance(outcome, ToTunnel)
    assert (outcome.destination, outcome.authority) == (GATE_POD, "10.96.0.1:80")
    assert refusal(called, GATED, pod, source=INGRESS).startswith("unknown waypoint")
    for source, web, there in (
        (CLIENT, GATED, called), (INGRESS, WEB.through(GATE), called),
        (INGRESS, replace(GATED, waypoint=None), called),
        (INGRESS, GATED, f"{pod.addresses[0]}:9999"), (INGRESS, replace(GATED, addresses=()), called),
    ):  # fmt: skip
        past = go(there, web, GATE, GATE_POD, pod, source=source, context=CONTEXT)
        assert isinstance(past, ToTunnel)
        assert past.destination == pod


def test_nothing_that_a_gateway_calls_is_taught_to_the_kernel() -> None:
    """It learns by address what may be behind a waypoint."""
    assert isinstance(go("10.96.0.1:80", WEB, NEAR, context=DIRECT), ToDirect)
    assert isinstance(go("10.96.0.1:80", WEB, NEAR, source=INGRESS, context=DIRECT), ToTunnel)
