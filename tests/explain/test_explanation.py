"""Explanations agree with what the proxies decide, and name every policy that was asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.builders import policy, service, workload, world_of
from ztunnel.authz.direct import connection_between
from ztunnel.authz.verdict import judge
from ztunnel.errors import Denied
from ztunnel.explain.explanation import explain_call
from ztunnel.explain.names import find_call
from ztunnel.explain.path import MOST_PATHS, Explanation, Way
from ztunnel.model.connection import Connection
from ztunnel.model.policy import Action, Policy
from ztunnel.model.service import LoadBalancing, Service
from ztunnel.model.workload import SameNode, Workload
from ztunnel.state.world import World

WEB = service("web").at("10.96.0.1").port(80, 8080)
CLIENT = workload("client").at("10.0.0.1").on("n1").hbone()
NEAR = workload("near").at("10.0.0.2").on("n1").hbone().serves(WEB)
FAR = workload("far").at("10.0.1.1").on("n2").hbone().serves(WEB)
OLD = workload("old").at("10.0.1.7").on("n2").serves(WEB)
ALLOW = policy("allow").when(principals=["cluster.local/ns/default/sa/client"])
DENY = policy("deny").deny().when(principals=["cluster.local/ns/default/sa/client"])


def explained(
    source: str, destination: str, *items: Workload | Service | Policy, same_node: SameNode = SameNode.AUTO
) -> Explanation:
    world = world_of(CLIENT, *items)
    return explain_call(world, find_call(world, source, destination), same_node)


def test_a_call_to_a_pod_of_another_node_goes_over_hbone_and_is_judged_there() -> None:
    found = explained("default/client", "10.0.1.1:8080", FAR, ALLOW)
    (path,) = found.paths
    assert (path.way, path.to, path.node, path.allowed) == (Way.HBONE, "default/far", "n2", True)
    assert found.verdict == "allowed: allowed by default/allow"
    assert [(one.policy, one.matches, one.decides) for one in path.tried] == [("default/allow", True, True)]


def test_a_denial_names_its_policy_and_the_rules_that_were_tried() -> None:
    found = explained("default/client", "10.0.1.1:8080", FAR, ALLOW, DENY)
    (path,) = found.paths
    assert not path.allowed
    assert "explicitly denied by: default/deny" in found.verdict
    assert [(one.policy, one.action, one.decides) for one in path.tried] == [
        ("default/deny", "DENY", True),
        ("default/allow", "ALLOW", False),
    ]
    assert path.tried[0].why == "rule 1 matches"


def test_a_service_is_explained_for_each_endpoint() -> None:
    shut = policy("shut").deny().selecting().rule()
    found = explained("default/client", "web", WEB, NEAR, FAR.selected_by(shut), OLD, shut)
    ways = {path.to: (path.way, path.allowed) for path in found.paths}
    assert ways == {
        "default/near": (Way.DIRECT, True),
        "default/far": (Way.HBONE, False),
        "default/old": (Way.PLAINTEXT, True),
    }
    assert found.verdict.startswith("refused by 1 of 3 endpoints:")
    assert not found.allowed


def test_modes_for_one_node_count() -> None:
    assert explained("default/client", "10.0.0.2:1", NEAR, same_node=SameNode.MTLS).paths[0].way is Way.HBONE


def test_many_endpoints_are_cut() -> None:
    many = [workload(f"pod-{n}").at(f"10.0.7.{n}").on("n2").hbone().serves(WEB) for n in range(1, 41)]
    found = explained("default/client", "web", WEB, *many)
    assert (len(found.paths), found.more) == (MOST_PATHS, 40 - MOST_PATHS)


def test_nowhere_is_refused_with_the_reason() -> None:
    found = explained("default/client", "web", WEB)
    assert not found.allowed
    assert "has no endpoints" in found.verdict
    assert not explained("192.0.2.9", "web", WEB).allowed


def test_what_is_not_the_meshs_is_left_alone() -> None:
    found = explained("default/client", "192.0.2.1:443")
    assert (found.paths[0].way, found.allowed) == (Way.PLAINTEXT, True)
    web = WEB.balanced(LoadBalancing.PASSTHROUGH)
    assert explained("default/client", "web", web, FAR).paths[0].way is Way.PLAINTEXT


def test_a_waypoint_is_named() -> None:
    gate = workload("gate").at("10.0.1.9").on("n2").native()
    found = explained("default/client", "10.0.1.1:80", FAR.through("10.0.1.9"), gate)
    assert (found.paths[0].way, found.paths[0].to) == (Way.WAYPOINT, "default/gate")


@st.composite
def _policies(draw: st.DrawFn) -> list[Policy]:
    found: list[Policy] = []
    for number in range(draw(st.integers(0, 4))):
        one = policy(f"p{number}")
        if draw(st.booleans()):
            one = one.deny()
        for _ in range(draw(st.integers(0, 2))):
            one = draw(
                st.sampled_from(
                    [
                        one.rule(),
                        one.when(principals=["cluster.local/ns/default/sa/client"]),
                        one.when(destination_ports=[8080]),
                        one.when(namespaces=["elsewhere"]),
                    ]
                )
            )
        found.append(one)
    return found


@given(_policies())
def test_the_trace_agrees_with_the_verdict(policies: list[Policy]) -> None:
    """At most one policy decides, and it is the one that the verdict names."""
    world = world_of(CLIENT, FAR, *policies)
    path = explain_call(world, find_call(world, "default/client", "10.0.1.1:8080")).paths[0]
    deciding = [one.policy for one in path.tried if one.decides]
    connection = connection_between(CLIENT, find_call(world, "192.0.2.1", "10.0.1.1:8080").destination)
    assert deciding == [key for key in [_deciding(world, connection)] if "/" in key]
    assert path.allowed == (not path.reason.startswith("connection closed"))
    assert len(path.tried) == len(policies)
    assert all(one.action in Action.__members__ for one in path.tried)


def _deciding(world: World, connection: Connection) -> str:
    """The policy that the verdict names; "" or a word where it is none."""
    try:
        return judge(world, FAR, connection).by or ""
    except Denied as error:
        return error.policy
