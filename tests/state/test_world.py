"""World: what the lookups find."""

from __future__ import annotations

from dataclasses import replace

from tests.builders import identity, ip, policy, service, workload, world_of
from ztunnel.state.world import World


def test_an_empty_world_knows_nobody() -> None:
    world = World()
    assert world.workload("x") is None
    assert world.by_ip(ip("10.0.0.1")) is None
    assert world.service(service("a").key) is None
    assert world.service_at(ip("10.0.0.1")) is None
    assert world.services_at(ip("10.0.0.1")) == ()
    assert world.services_named("a") == ()
    assert world.endpoints(service("a").key) == ()
    assert world.on_node("n1") == ()
    assert world.policies_for(workload("a")) == ((), ())


def test_a_workload_is_found_by_uid_by_each_address_and_by_node() -> None:
    a = workload("a").at("10.0.0.1", "fd00::1").on("n1")
    b = workload("b").at("10.0.0.2").on("n1")
    world = world_of(b, a)
    assert world.workload(a.uid) is a
    assert world.by_ip(ip("10.0.0.1")) is a
    assert world.by_ip(ip("fd00::1")) is a
    assert world.on_node("n1") == (a, b)


def test_a_workload_with_the_host_network_is_not_found_by_address() -> None:
    assert world_of(workload("a").at("10.0.0.1").host_networked()).by_ip(ip("10.0.0.1")) is None


def test_an_address_of_another_network_means_nobody_in_ours() -> None:
    far, near = (
        workload("far").at("10.0.0.1").in_network("far"),
        workload("near").at("10.0.0.2").in_network("us"),
    )
    world = world_of(far, near, network="us")
    assert world.by_ip(ip("10.0.0.1")) is None
    assert world.by_ip(ip("10.0.0.2")) is near


def test_of_several_workloads_at_one_address_the_pod_counts_then_the_one_in_the_mesh() -> None:
    entry = (
        workload("entry")
        .at("10.0.0.1")
        .hbone()
        .identified_by("c/networking.istio.io/WorkloadEntry/default/e")
    )
    a_plain_pod = workload("a").at("10.0.0.1")
    pod_in_the_mesh = workload("b").at("10.0.0.1").hbone()
    assert world_of(entry, a_plain_pod).by_ip(ip("10.0.0.1")) is a_plain_pod
    assert world_of(pod_in_the_mesh, entry, a_plain_pod).by_ip(ip("10.0.0.1")) is pod_in_the_mesh


def test_a_service_is_found_by_name_by_virtual_address_and_by_hostname() -> None:
    web = service("web").at("10.96.0.1", "fd00:96::1")
    world = world_of(web)
    assert world.service(web.key) is web
    assert world.service_at(ip("fd00:96::1")) is web
    assert world.services_at(ip("10.96.0.1")) == (web,)
    assert world.services_named("web.default.svc.cluster.local") == (web,)


def test_endpoints_wait_for_their_service() -> None:
    web = service("web")
    a = workload("a").serves(web, 80)
    world = world_of(a)
    assert world.service(web.key) is None
    assert world.endpoints(web.key) == (a,)


def test_endpoints_come_in_order_of_uid_and_include_the_unhealthy() -> None:
    web = service("web")
    b, a = workload("b").serves(web, 80), workload("a").serves(web, 80).unhealthy()
    assert world_of(web, b, a).endpoints(web.key) == (a, b)


def test_only_names_that_are_identities_count_as_such() -> None:
    web = service("web").proving("web.example.org", "spiffe://cluster.local/ns/default/sa/web", "spiffe://x")
    assert world_of(web).served[web.key].identities == (identity("default/web"),)


def test_policies_are_those_of_the_mesh_of_the_namespace_and_those_listed() -> None:
    everywhere = policy("m", "istio-system").everywhere()
    ours, theirs = policy("n"), policy("n", "other")
    listed, unlisted = policy("s").selecting(), policy("t").selecting()
    world = world_of(everywhere, ours, theirs, listed, unlisted)
    concerned = workload("a").selected_by(listed, "default/unheard-of")
    assert world.policies_for(concerned) == ((everywhere, ours, listed), ("default/unheard-of",))
    assert world.policies_for(workload("b")) == ((everywhere, ours), ())


def test_every_snapshot_has_a_mark_of_its_own() -> None:
    one = World()
    assert replace(one, network="n").mark is not one.mark
    assert World().mark is not one.mark
    assert World() == one
