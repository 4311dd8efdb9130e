"""Clusters follow the world; what has happened to an endpoint stays."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from random import Random

import pytest

from tests.builders import world_of
from tests.waypoint.mesh import ME, PORTS, SERVERS, SERVICE, WEB, workload
from tests.waypoint.rig import Clock
from ztunnel.l7.balancing.circuit import Limit
from ztunnel.model.address import Endpoint
from ztunnel.model.labels import WorkloadLabels
from ztunnel.model.service import Service, ServiceName
from ztunnel.model.service_traffic import ClientTraffic, ServiceTraffic, SubsetTraffic
from ztunnel.model.traffic import Balance, Balancing, Localities, Outlier, Pool, PortTraffic, Traffic
from ztunnel.state.delta import apply
from ztunnel.state.hold import Hold
from ztunnel.waypoint.upstream.clusters import WHOLE, Clusters, Subset
from ztunnel.waypoint.upstream.pick import Caller, Pick

VIP = SERVICE.addresses[0]
ASKED = Endpoint(VIP, 80)
V1 = Subset("v1", (("version", "v1"),))
EJECTS = Traffic(outlier=Outlier(1, most_percent=100))


class Mesh:
    def __init__(self, *more) -> None:
        self.clock = Clock()
        self.hold = Hold(apply(world_of(ME, *SERVERS, SERVICE), more)[0])
        self.clusters = Clusters(Random(1), lambda: self.clock.now)
        self.hold.subscribe(self.clusters.changed)

    def change(self, *upserts, removals=()) -> None:
        self.hold.publish(*apply(self.hold.world, upserts, removals))

    def find(self, asked=ASKED, subset=WHOLE):
        world = self.hold.world
        return self.clusters.find(world, world.served[WEB], asked, world.workload(ME.uid), subset).cluster

    def endpoints(self, subset=WHOLE):
        return {str(each.ip) for each in self.find(subset=subset).hosts}


def says(common, *ports, subsets=(), namespace=""):
    made = PortTraffic(common, tuple(ports))
    return ServiceTraffic(WEB, (ClientTraffic(namespace, made, subsets),))


def test_a_cluster_is_the_endpoints_of_its_service_and_is_kept():
    mesh = Mesh()
    one = mesh.find()
    assert mesh.endpoints() == {"10.0.0.3", "10.0.0.4"}
    assert mesh.find() is one
    assert len(mesh.clusters) == 1


def test_policies_are_those_of_port_subset_and_the_waypoints_namespace():
    common, port, sub = (Traffic(pool=Pool(connections=n)) for n in (1, 2, 3))
    subsets = (SubsetTraffic("v1", PortTraffic(sub)),)
    mesh = Mesh(says(common, (90, port), subsets=subsets))
    assert mesh.find().traffic == common
    assert mesh.find(Endpoint(VIP, 90)).traffic == port
    assert mesh.find(subset=V1).traffic == sub
    mesh.change(says(common, namespace="other"))
    assert mesh.find().traffic == Traffic()
    mesh.change(says(common, namespace="shop"))
    assert mesh.find().traffic == common


def test_what_happened_stays_whatever_else_changes():
    mesh = Mesh(says(EJECTS))
    one = mesh.find()
    host = one.hosts[Endpoint(ip_address("10.0.0.3"), 8080)]
    host.active = 2
    one.responded(host, 500, mesh.clock.now)
    other = workload("new", "10.0.0.9", WEB, PORTS)
    for change in (
        [other],
        [replace(SERVERS[1], capacity=3)],
        [replace(SERVERS[0], canonical_revision="v2")],
        [Service("x", "shop", "x.shop.svc.cluster.local")],
        [says(replace(EJECTS, balancing=Balancing(Balance.RANDOM)))],
        [replace(SERVICE, subject_alt_names=("spiffe://a",))],
        [replace(ME, node="moved")],
    ):
        mesh.change(*change)
        assert mesh.find() is one
        assert not host.available
        assert one.hosts[host.endpoint] is host
    assert mesh.endpoints() == {"10.0.0.3", "10.0.0.4", "10.0.0.9"}
    mesh.change(removals=[SERVERS[0].uid])
    assert mesh.find().outliers.ejected == set()
    mesh.change(SERVERS[0])
    assert mesh.find().hosts[host.endpoint].available


def test_a_subset_follows_the_labels():
    mesh = Mesh(WorkloadLabels(SERVERS[0].uid, frozenset(V1.labels)))
    assert mesh.endpoints(V1) == {"10.0.0.3"}
    mesh.change(WorkloadLabels(SERVERS[1].uid, frozenset(V1.labels)))
    assert mesh.endpoints(V1) == {"10.0.0.3", "10.0.0.4"}
    mesh.change(WorkloadLabels(SERVERS[0].uid, frozenset()))
    assert mesh.endpoints(V1) == {"10.0.0.4"}
    assert mesh.endpoints() == {"10.0.0.3", "10.0.0.4"}


def test_levels_follow_the_labels_where_they_are_by_labels():
    by_label = Balancing(None, None, Localities(priorities=("v",)))
    mesh = Mesh(says(replace(EJECTS, balancing=by_label)), WorkloadLabels(ME.uid, frozenset({("v", "1")})))
    assert {each.level for each in mesh.find()._members} == {0}
    mesh.change(WorkloadLabels(SERVERS[0].uid, frozenset({("v", "1")})))
    assert sorted(each.level for each in mesh.find()._members) == [0, 1]
    mesh.change(WorkloadLabels(ME.uid, frozenset({("v", "2")})))
    assert {each.level for each in mesh.find()._members} == {0}


def test_what_is_under_way_counts_together_for_all_addresses_of_a_service():
    six = ip_address("fd00:1::1")
    mesh = Mesh(replace(SERVICE, addresses=(VIP, six)), says(Traffic(pool=Pool(requests=1))))
    four, other = mesh.find(), mesh.find(Endpoint(six, 80))
    assert four is not other
    assert four.circuit.take(Limit.REQUESTS)
    assert not other.circuit.take(Limit.REQUESTS)
    assert mesh.find(Endpoint(VIP, 90)).circuit.take(Limit.REQUESTS)


def test_a_service_that_has_gone_is_forgotten_with_all_of_its_clusters():
    mesh = Mesh(says(EJECTS))
    mesh.find()
    mesh.find(Endpoint(VIP, 90))
    mesh.find(subset=V1)
    one = mesh.find()
    one.responded(next(iter(one.hosts.values())), 500, 0.0)
    mesh.change(removals=[f"{ServiceName(*WEB)}"])
    assert len(mesh.clusters) == 0
    assert not mesh.clusters._circuits
    assert mesh.clusters.all_ejections() == 1


def test_what_nobody_asks_for_is_forgotten_in_time_but_not_what_is_under_way():
    mesh = Mesh()
    mesh.find()
    busy = mesh.find(Endpoint(VIP, 90))
    busy.circuit.take(Limit.CONNECTIONS)
    mesh.clusters.look(mesh.clock.now + 3599)
    assert len(mesh.clusters) == 2
    mesh.clusters.look(mesh.clock.now + 3601)
    assert mesh.find(Endpoint(VIP, 90)) is busy
    assert len(mesh.clusters) == 1


def test_figures_count_what_was_forgotten_too():
    mesh = Mesh(says(replace(EJECTS, pool=Pool(requests=1))))
    one = mesh.find()
    one.responded(next(iter(one.hosts.values())), 500, 0.0)
    one.circuit.take(Limit.REQUESTS)
    one.circuit.take(Limit.REQUESTS)
    expected = [(("connections",), 0), (("pending",), 0), (("requests",), 1), (("retries",), 0)]
    assert mesh.clusters.all_overflows() == expected
    assert (mesh.clusters.ejected(), mesh.clusters.all_ejections()) == (1, 1)
    mesh.change(removals=[str(WEB)])
    assert mesh.clusters.all_overflows() == expected
    assert (mesh.clusters.ejected(), mesh.clusters.all_ejections()) == (0, 1)


@pytest.mark.parametrize("healthy", [True, False])
def test_who_is_not_ready_is_no_endpoint(healthy):
    mesh = Mesh(replace(SERVERS[0], healthy=healthy))
    assert mesh.endpoints() == ({"10.0.0.3", "10.0.0.4"} if healthy else {"10.0.0.4"})


def test_what_takes_long_is_not_done_again_at_once_but_nobody_who_has_gone_is_called():
    mesh, pace = Mesh(), 0.0

    def now() -> float:
        mesh.clock.now += pace
        return mesh.clock.now

    mesh.clusters.now = now
    mesh.find()
    pace = 0.01  # it takes ten milliseconds
    mesh.change(workload("third", "10.0.0.5", WEB, PORTS))
    assert len(mesh.find().hosts) == 3
    mesh.change(workload("fourth", "10.0.0.6", WEB, PORTS))
    assert len(mesh.find().hosts) == 3
    mesh.change(removals=[each.uid for each in SERVERS] + ["k//Pod/shop/third"])
    pick = Pick(mesh.clusters, mesh.hold.world, Caller(ME.addresses[0]))
    choice = pick.choose(mesh.hold.world.served[WEB], ASKED, mesh.hold.world.workload(ME.uid))
    assert choice.workload.name == "fourth"
    mesh.change(workload("fifth", "10.0.0.7", WEB, PORTS))
    mesh.clock.now += 1.0
    assert len(mesh.find().hosts) == 2
