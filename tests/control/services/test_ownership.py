"""What somebody has, an entry of somebody else does not take."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from ztunnel.control.index import Index
from ztunnel.control.services.ownership import Entries
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import key_of
from ztunnel.model.service import IpFamilies
from ztunnel.state.kube import Namespace, Pod, Service
from ztunnel.state.meta import Meta
from ztunnel.state.networking import EntryEndpoint, Resolution, ServiceEntry, WorkloadEntry

OLD, NEW = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
HBONE = {"networking.istio.io/tunnel": "http"}


def endpoint(text):
    return EntryEndpoint(text, ip_address(text), {}, {})


def entry(
    name, namespace, hosts=("a.example",), addresses=(), endpoints=(), created="", resolution="STATIC", **meta
):
    return ServiceEntry(
        Meta(name, namespace, meta.get("labels", {}), {}, created),
        tuple(hosts),
        tuple(map(ip_network, addresses)),
        (),
        Resolution(resolution),
        endpoints=tuple(map(endpoint, endpoints)),
    )


def workload(name, namespace, address, labels=HBONE, created="", annotations=None):
    return WorkloadEntry(Meta(name, namespace, labels, annotations or {}, created), endpoint(address), labels)


def pod(name, namespace, address, host_network=False, phase="Running"):
    return Pod(
        Meta(name, namespace, {}, {}), "n1", "default", host_network, {}, (ip_address(address),), phase, True
    )


def service(name, namespace, address="10.96.0.1", external=(), kind=""):
    ips = (ip_address(address),)
    return Service(
        Meta(name, namespace, {}, {}), kind, {}, ips, (), False, "", False, IpFamilies.AUTOMATIC,
        tuple(map(ip_address, external)),
    )  # fmt: skip


def entries_of(*objects):
    index = Index()
    entries = Entries(index, MeshSettings())
    for one in objects:
        if isinstance(one, ServiceEntry | WorkloadEntry):
            entries.put(key_of(one), None, one)
        else:
            index.put(key_of(one), None, one)
    return entries


def standing(one, *others):
    return entries_of(one, *others).standing(key_of(one))


@pytest.mark.parametrize("address", ["10.0.0.1", "fd00::1"])
def test_an_address_of_a_pod_or_service_is_theirs_in_every_namespace(address):
    for namespace in ("shop", "other"):
        for other in (
            pod("p", "shop", address),
            service("s", "shop", address),
            service("t", "shop", external=[address]),
        ):
            virtual = standing(entry("e", namespace, addresses=[address]), other)
            assert virtual.addresses == ()
            assert "shop/" in virtual.refused[0]
            assert address in virtual.refused[0]
            assert standing(entry("e", namespace, endpoints=[address]), other).endpoints == ()
            assert standing(workload("w", namespace, address, {}), other).endpoints == ()


def test_what_kubernetes_takes_back_is_free():
    held = pod("p", "shop", "10.0.0.1")
    assert standing(entry("e", "x", addresses=["10.0.0.1"]), replace(held, phase="Failed")).refused == ()
    assert (
        standing(entry("e", "x", addresses=["10.96.0.1"]), service("s", "y", kind="ExternalName")).refused
        == ()
    )


def test_a_node_has_its_address_for_all_but_plaintext_endpoints():
    node = pod("agent", "kube-system", "192.168.0.1", host_network=True)
    assert standing(entry("e", "x", addresses=["192.168.0.1"]), node).addresses == ()
    assert standing(entry("e", "x", endpoints=["192.168.0.1"]), node).refused == ()
    assert standing(workload("w", "x", "192.168.0.1", {}), node).refused == ()
    assert "node" in standing(workload("w", "x", "192.168.0.1"), node).refused[0]


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "0.0.0.0", "::", "169.254.169.254", "fe80::1", "224.0.0.1", "ff02::1"]
)
def test_special_addresses_are_nobodys(address):
    assert standing(entry("e", "x", addresses=[address])).addresses == ()
    assert standing(entry("e", "x", endpoints=[address])).endpoints == ()
    assert standing(workload("w", "x", address, {})).endpoints == ()


def test_where_calls_go_on_as_they_are_a_special_address_may_be_named():
    assert standing(entry("e", "x", addresses=["169.254.169.254"], resolution="NONE")).refused == ()


@pytest.mark.parametrize(
    "host",
    [
        "web.shop.svc.cluster.local", "web-0.web.shop.svc.cluster.local", "*.shop.svc.cluster.local",
        "*.svc.cluster.local", "*.cluster.local", "*.local", "*.web.shop.svc.cluster.local",
    ],
)  # fmt: skip
def test_names_of_another_namespaces_services_are_refused_be_there_one_or_not(host):
    found = standing(entry("e", "other", hosts=[host, "free.example"]))
    assert found.hosts == ("free.example",)
    assert host in found.refused[0]


def test_in_its_own_namespace_a_name_without_a_service_is_free():
    mine = entry("e", "shop", hosts=["web.shop.svc.cluster.local"])
    assert standing(mine).hosts == ("web.shop.svc.cluster.local",)
    assert standing(mine, service("web", "shop", kind="ExternalName")).refused == ()
    assert standing(mine, service("web", "shop")).hosts == ()
    assert standing(mine, service("web", "shop")).refused == (
        "host web.shop.svc.cluster.local is Service shop/web",
    )


def test_within_a_namespace_the_oldest_has_a_host_alone():
    first, second = entry("z", "shop", created=OLD), entry("a", "shop", created=NEW)
    assert standing(first, second).hosts == ("a.example",)
    assert standing(second, first).hosts == ()
    assert "older ServiceEntry shop/z" in standing(second, first).refused[0]


def test_between_namespaces_each_has_it_for_itself_and_the_oldest_for_the_mesh():
    first, second = entry("z", "zz", created=OLD), entry("a", "aa", created=NEW)
    assert standing(first, second).canonical == {"a.example"}
    assert standing(second, first).canonical == set()
    assert standing(second, first).hosts == ("a.example",)
    assert standing(second, first).refused == ()


def test_so_it_is_with_an_address_that_services_of_two_names_have():
    first = entry("z", "zz", ["z.example"], ["192.0.2.1"], created=OLD)
    second = entry("a", "aa", ["a.example"], ["192.0.2.1"], created=NEW)
    assert standing(first, second).canonical == {"z.example"}
    assert standing(second, first).canonical == set()
    assert standing(second, first).addresses == (ip_address("192.0.2.1"),)
    # An endpoint there is no claim to the address.
    third = entry("b", "bb", ["b.example"], endpoints=["192.0.2.1"], created=OLD)
    assert standing(first, third).canonical == {"z.example"}


def test_without_times_names_decide():
    assert standing(entry("a", "aa"), entry("a", "bb")).canonical == {"a.example"}
    assert standing(entry("a", "bb"), entry("a", "aa")).canonical == set()


def test_at_the_address_of_a_tunnel_is_only_one_namespaces_workload():
    first, second = (
        workload("w", "zz", "192.0.2.9", created=OLD),
        workload("w", "aa", "192.0.2.9", created=NEW),
    )
    assert standing(first, second).refused == ()
    assert standing(second, first).endpoints == ()
    assert "older WorkloadEntry zz/w" in standing(second, first).refused[0]
    inline = entry("e", "aa", endpoints=["192.0.2.9"], labels=HBONE, created=NEW)
    assert standing(inline, first).endpoints == ()
    # In plaintext an address may be anybody's, and within one namespace its owner knows.
    assert standing(workload("w", "aa", "192.0.2.9", {}, NEW), first).refused == ()
    assert standing(workload("v", "zz", "192.0.2.9", created=NEW), first).refused == ()
    assert standing(second, workload("w", "zz", "192.0.2.9", {}, OLD)).refused == ()


def test_sockets_and_repetitions_are_said_and_ranges_are_left_out():
    found = standing(
        entry("e", "x", addresses=["192.0.2.0/24", "192.0.2.1"], endpoints=["192.0.2.8", "192.0.2.8"])
    )
    assert found.addresses == (ip_address("192.0.2.1"),)
    assert [text.split()[0] for text in found.refused] == ["endpoint"]
    socket = replace(entry("e", "x"), endpoints=(EntryEndpoint("unix:///x", None, {}, {}),))
    assert "no IP address" in standing(socket).refused[0]


def test_what_is_taken_out_leaves_nothing_behind():
    entries = entries_of()
    one = entry("e", "x", addresses=["192.0.2.1"], endpoints=["192.0.2.2"])
    entries.put(key_of(one), None, one)
    moved = replace(one, hosts=("b.example",), addresses=(ip_network("192.0.2.3"),))
    entries.put(key_of(one), one, moved)
    assert list(entries.at([ip_address("192.0.2.1")])) == list(entries.named("a.example")) == []
    assert list(entries.at([ip_address("192.0.2.3"), ip_address("192.0.2.2")])) == [key_of(one)] * 2
    assert [key for key, _ in entries.of("x")] == [key_of(one)]
    entries.put(key_of(one), moved, None)
    assert list(entries.rivals(moved)) == list(entries.of("x")) == list(entries.namespaces) == []
    assert entries.standing(key_of(one)).hosts == ()


def test_what_somebody_wrote_into_a_status_is_claimed_like_any_other_address():
    stolen = replace(
        entry("e", "x"), allocated={"a.example": (ip_address("10.96.0.1"), ip_address("240.0.0.1"))}
    )
    found = standing(stolen, service("s", "shop"))
    assert found.allocated == {"a.example": (ip_address("240.0.0.1"),)}
    assert found.refused == ("address 10.96.0.1 is that of Service shop/s",)
    assert set(entries_of(stolen).at([ip_address("240.0.0.1")])) == {key_of(stolen)}


WAYPOINT = {"istio.io/use-waypoint": "wp"}


@pytest.mark.parametrize("labels", [HBONE, WAYPOINT])
def test_a_workload_that_is_met_at_its_address_takes_none_of_another_namespaces_service(labels):
    """Whoever is met there comes before the service, and past its waypoint."""
    egress = entry("egress", "shop", addresses=["198.51.100.7"], created=OLD)
    greedy = workload("w", "evil", "198.51.100.7", labels, NEW)
    assert standing(greedy, egress).endpoints == ()
    assert "older ServiceEntry shop/egress" in standing(greedy, egress).refused[0]
    assert standing(egress, greedy).refused == ()
    # Nor does a service take a workload's.
    machine, late = (
        workload("w", "shop", "198.51.100.7", labels, OLD),
        replace(egress, meta=Meta("e", "evil", {}, {}, NEW)),
    )
    assert standing(late, machine).addresses == ()
    assert standing(machine, late).refused == ()
    # In one's own namespace both are one's own, and an endpoint in plaintext is met by nobody.
    assert standing(workload("w", "shop", "198.51.100.7", labels, NEW), egress).refused == ()
    assert standing(workload("w", "evil", "198.51.100.7", {}, NEW), egress).refused == ()


def test_a_namespaces_waypoint_makes_its_plain_workloads_met():
    space = Namespace(Meta("evil", "", WAYPOINT, {}))
    egress = entry("egress", "shop", addresses=["198.51.100.7"], created=OLD)
    assert standing(workload("w", "evil", "198.51.100.7", {}, NEW), egress, space).endpoints == ()
