"""What a delta can touch."""

from __future__ import annotations

from tests.builders import ip, policy, service, workload, world_of
from ztunnel.model.http_policy import HttpAction, HttpPolicy
from ztunnel.model.workload import SameNode
from ztunnel.state.change import Change, merge
from ztunnel.state.delta import apply
from ztunnel.state.world import World


def test_a_change_names_addresses_nodes_and_services_before_and_after() -> None:
    web, api = service("web"), service("api")
    before = workload("a").at("10.0.0.1").on("n1").serves(web, 80)
    after = workload("a").at("10.0.0.2").on("n2").serves(api, 80)
    _, change = apply(world_of(before, web, api), [after])
    assert change.workloads == change.reclassified == {before.uid}
    assert change.addresses == {ip("10.0.0.1"), ip("10.0.0.2")}
    assert change.nodes == {"n1", "n2"}
    assert change.services == {web.key, api.key}


def test_only_what_a_verdict_rests_on_reclassifies_a_workload() -> None:
    a = workload("a").hbone().on("n1")
    cases = {
        "health": (a.unhealthy(), False),
        "capacity": (a.weighing(3), False),
        "locality": (a.located("r"), False),
        "account": (a.account("b"), True),
        "policies": (a.selected_by("default/p"), True),
        "node": (a.on("n2"), True),
        "protocol": (a.plain(), True),
        "mode": (a.same_node_mode(SameNode.MTLS), True),
        "services": (a.serves(service("web"), 80), True),
        "waypoint": (a.through("10.0.0.9"), True),
        "address": (a.at("10.9.9.9"), True),
    }
    for name, (changed, expected) in cases.items():
        _, change = apply(world_of(a), [changed])
        assert change.workloads == {a.uid}, name
        assert (a.uid in change.reclassified) is expected, name
        assert change.touches(a) is expected, name


def test_a_policy_touches_those_whom_it_concerns() -> None:
    a, other = workload("a"), workload("b", "other")
    picked = workload("c", "other").selected_by("default/p")
    cases = [
        (policy("p"), {"a", "c"}),
        (policy("p").everywhere(), {"a", "b", "c"}),
        (policy("p").selecting(), {"c"}),
    ]
    for rule, expected in cases:
        for before, sent, removed in ((World(), [rule], []), (world_of(rule), [], [rule.key])):
            _, change = apply(before, sent, (), removed)
            assert {each.name for each in (a, other, picked) if change.touches(each)} == expected


def test_a_policy_of_waypoints_touches_no_verdict_of_a_node_proxy() -> None:
    rule = HttpPolicy("p", "default", HttpAction.DENY)
    world, change = apply(World(), [rule])
    assert (change.http, change.policies) == ({("HttpPolicy", "default/p")}, frozenset())
    assert not world.policies
    assert not change.touches(workload("a").selected_by("default/p"))
    assert dict(world.http_policies) == {"default/p": rule}
    gone, change = apply(world, (), (), (), {HttpPolicy: ["default/p", "unknown/q"]})
    assert (gone, change.http) == (World(), {("HttpPolicy", "default/p")})
    assert merge([change, Change()]).http == change.http


def test_a_policy_that_moves_between_scopes_touches_both() -> None:
    _, change = apply(world_of(policy("p")), [policy("p").selecting()])
    assert change.touches(workload("a"))
    assert change.touches(workload("b", "other").selected_by("default/p"))
