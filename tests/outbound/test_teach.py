"""The kernel's list of the mesh's addresses follows the world, and counts only while it is whole."""

from __future__ import annotations

from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import ip, large_mesh, service, workload, world_of
from tests.outbound.parts import Addresses
from ztunnel.model.address import IPAddress
from ztunnel.model.service import Service
from ztunnel.model.workload import Workload
from ztunnel.outbound.teach import MeshAddresses
from ztunnel.state.delta import apply
from ztunnel.state.hold import Hold
from ztunnel.state.lookup import concerns

A = workload("a").at("10.0.0.1", "fd00::1").on("n1").hbone()
PLAIN = workload("plain").at("10.0.0.2").on("n1").plain()
WEB = service("web").at("10.96.0.1", "fd00:96::1").port(80, 8080)
HERE = {ip("10.0.0.1"), ip("fd00::1"), ip("10.96.0.1"), ip("fd00:96::1")}


class Mesh:
    """A world that changes, and a kernel that is told. `full`: it takes nothing more."""

    def __init__(self, *items: Workload | Service) -> None:
        self.kernel = Addresses()
        self.kernel.mesh.add(ip("10.9.9.9"))  # a predecessor's
        self.hold = Hold(world_of(*items))
        self.addresses = MeshAddresses(self.kernel, self.hold, "n1")

    def publish(self, *upserts: Workload | Service, removed: tuple[str, ...] = ()) -> None:
        self.hold.publish(*apply(self.hold.world, upserts, removed))

    @property
    def seen(self) -> tuple[bool, bool]:
        """As the kernel and as metrics have it."""
        return self.kernel.is_known, self.addresses.left_alone


def test_nothing_is_known_until_the_world_is_received() -> None:
    mesh = Mesh()
    mesh.publish(A, PLAIN, WEB)
    assert mesh.seen == (False, False)
    mesh.addresses.received()
    assert mesh.kernel.mesh == HERE
    assert mesh.seen == (True, True)


def test_what_a_predecessor_told_does_not_count() -> None:
    mesh = Mesh(A)
    assert mesh.kernel.mesh == {ip("10.0.0.1"), ip("fd00::1")}
    assert mesh.seen == (False, False)


def test_a_change_is_told_before_it_is_acknowledged_and_only_what_changed() -> None:
    mesh = Mesh(A, PLAIN, WEB)
    mesh.addresses.received()
    mesh.kernel.told = 0
    mesh.publish(PLAIN.hbone())
    assert mesh.kernel.mesh == HERE | {ip("10.0.0.2")}
    mesh.publish(PLAIN, A.unhealthy())
    mesh.publish(WEB.at("10.96.0.1"), removed=(A.uid,))
    assert mesh.kernel.mesh == {ip("10.96.0.1")}
    mesh.publish(removed=(str(WEB.key),))
    assert mesh.kernel.mesh == set()
    assert mesh.kernel.told == 1
    assert mesh.seen == (True, True)


def test_without_room_nothing_is_left_alone_until_all_fits_again() -> None:
    mesh = Mesh(A)
    mesh.addresses.received()
    mesh.kernel.full = True
    mesh.publish(WEB)
    assert mesh.seen == (False, False)
    mesh.publish(PLAIN.hbone())
    assert mesh.seen == (False, False)
    mesh.kernel.full = False
    mesh.publish(PLAIN)
    assert mesh.kernel.mesh == HERE
    assert mesh.seen == (True, True)


def test_a_mesh_that_is_too_large_is_not_tried_at_each_change() -> None:
    mesh = Mesh()
    mesh.kernel.limit = 2
    mesh.kernel.full = True
    mesh.publish(A, WEB)
    mesh.kernel.full = False
    mesh.addresses.received()
    mesh.publish(PLAIN)
    assert mesh.kernel.told == 0
    assert mesh.seen == (False, False)
    mesh.publish(removed=(str(WEB.key), PLAIN.uid))
    assert mesh.seen == (True, True)


@pytest.mark.parametrize(("node", "alone"), [("n1", False), ("n2", True)])
def test_a_pod_of_another_network_on_this_node_ends_it(node: str, alone: bool) -> None:
    """Its calls are to be refused, wherever they go."""
    mesh = Mesh(A)
    mesh.addresses.received()
    strange = workload("strange").at("10.0.0.9").on(node).hbone().in_network("elsewhere")
    mesh.publish(strange)
    assert mesh.seen == (alone, alone)
    mesh.publish(removed=(strange.uid,))
    assert mesh.seen == (True, True)


PLACES = ["10.0.0.1", "10.0.0.2", "fd00::1"]
ITEMS = st.builds(
    lambda name, at, change: change(workload(name).at(*at)),
    st.sampled_from("abc"),
    st.lists(st.sampled_from(PLACES), max_size=2),
    st.sampled_from(
        [
            lambda it: it.hbone(),
            lambda it: it.plain().through("10.0.0.9"),
            lambda it: it.plain().unhealthy(),
            lambda it: it.plain().serves(WEB),
        ]
    ),
) | st.builds(
    lambda name, at: service(name).at(*at),
    st.sampled_from("xy"),
    st.lists(st.sampled_from(PLACES), max_size=2),
)


def concerned(mesh: Mesh) -> set[IPAddress]:
    return {ip(at) for at in PLACES if concerns(mesh.hold.world, ip(at))}


@given(
    st.lists(st.tuples(st.lists(ITEMS, max_size=3), st.lists(ITEMS, max_size=2), st.booleans()), max_size=6)
)
@settings(max_examples=150, deadline=None)
def test_after_any_history_all_that_concerns_the_mesh_is_told_or_nothing_counts(
    deltas: list[tuple[list[Workload | Service], list[Workload | Service], bool]],
) -> None:
    mesh = Mesh()
    mesh.addresses.received()
    for upserts, removed, full in deltas:
        mesh.kernel.full = full
        keys = tuple(each.uid if isinstance(each, Workload) else str(each.key) for each in removed)
        mesh.publish(*upserts, removed=keys)
        assert mesh.kernel.is_known <= (mesh.kernel.mesh == concerned(mesh))
    mesh.kernel.full = False
    mesh.publish(PLAIN)
    assert (mesh.kernel.mesh, mesh.seen) == (concerned(mesh), (True, True))


def test_one_pod_among_very_many_costs_little() -> None:
    mesh = Mesh()
    mesh.kernel.limit = 262144
    mesh.publish(*large_mesh(20_000, 0))
    mesh.addresses.received()
    assert mesh.seen == (True, True)
    begun = perf_counter()
    for _ in range(100):
        mesh.publish(A)
        mesh.publish(removed=(A.uid,))
    assert (perf_counter() - begun) / 200 < 0.005


def test_the_list_is_told_anew_where_a_successor_may_have_changed_it() -> None:
    mesh = Mesh(A, WEB)
    mesh.addresses.received()
    mesh.kernel.mesh.clear()
    mesh.kernel.known(False)
    mesh.addresses.begin_anew()
    assert mesh.kernel.mesh == HERE
    assert mesh.seen == (True, True)


def test_once_a_successor_keeps_it_nothing_is_told() -> None:
    mesh = Mesh(A)
    mesh.addresses.received()
    mesh.addresses.hand_over()
    mesh.publish(WEB)
    assert mesh.kernel.mesh == {ip("10.0.0.1"), ip("fd00::1")}


def test_a_world_that_is_known_before_is_looked_at_for_strange_pods() -> None:
    mesh = Mesh(workload("far").at("10.0.0.7").on("n1").hbone().in_network("other"))
    mesh.addresses.received()
    assert mesh.seen == (False, False)
