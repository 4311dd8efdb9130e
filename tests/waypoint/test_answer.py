"""Who asks a waypoint for a tunnel: what it stands for, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tests.builders import world_of
from tests.hbone.conftest import contexts, lab
from tests.hbone.inner import Listener
from tests.hbone.peers import Lab
from tests.waypoint.mesh import (
    CALLER,
    GET,
    ME,
    SERVERS,
    SERVICE,
    Mesh,
    change,
    counted,
)
from ztunnel.errors import Unreachable
from ztunnel.state.change import Change
from ztunnel.xds.on_demand import OnDemand
from ztunnel.xds.pb.discovery_pb2 import Resource

__all__ = ["contexts", "lab"]


@pytest.mark.parametrize(
    "authority", ["10.0.0.3:80", "10.9.9.9:80", "127.0.0.1:15000", "10.1.0.1:81", "10.0.0.1:15008"]
)
def test_what_is_not_attached_is_refused_with_404(lab: Lab, authority: str) -> None:
    mesh = Mesh(lab)
    _, answers = mesh.ask(authority)
    lab.go()
    for _ in range(30):  # it might be attached in a moment
        lab.clock.move(0.05)
        lab.go()
    assert answers.log == [404]
    assert not mesh.tunnels.asked
    assert authority in mesh.denied[0]
    assert mesh.parts.waiting == 0


def test_it_is_known_for_how_long_nobody_has_asked(lab: Lab) -> None:
    mesh = Mesh(lab)
    assert mesh.parts.quiet_seconds() == math.inf
    for _ in range(2):
        mesh.open("10.1.0.1:80")
        begun = mesh.parts.quiet_seconds()
        lab.clock.move(2.0)
        assert mesh.parts.quiet_seconds() == begun + 2.0 < 3.0


def test_a_call_for_what_is_attached_a_moment_later_waits_for_that(lab: Lab) -> None:
    mesh = Mesh(lab, ME, CALLER, *SERVERS, replace(SERVICE, waypoint=None))
    tunnel, answers = mesh.ask("10.1.0.1:80")
    other, refused = mesh.ask("10.1.0.1:80")
    lab.go()
    assert (answers.log, mesh.parts.waiting) == ([], 2)
    other.abort(Unreachable("it goes"))
    world = world_of(ME, CALLER, *SERVERS, SERVICE)
    mesh.hold.publish(world, Change())
    mesh.hold.world = world
    lab.clock.move(0.1)
    lab.go(until=lambda: answers.log)
    assert (answers.log, refused.log, mesh.parts.waiting) == (["established"], [], 0)
    assert not tunnel.closed


def test_a_call_for_what_was_detached_a_moment_ago_is_served(lab: Lab) -> None:
    mesh = Mesh(lab)
    mesh.open("10.1.0.1:80")
    world = world_of(ME, CALLER, *SERVERS, replace(SERVICE, waypoint=None))
    mesh.hold.publish(world, Change())
    mesh.hold.world = world
    client, heard = mesh.open("10.1.0.1:80")
    client.write(GET)
    server, asked = mesh.serve()
    lab.go(until=lambda: b"\r\n\r\n" in asked.got)
    server.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    lab.go(until=lambda: heard.got.endswith(b"hi"))


@pytest.mark.parametrize("authority", ["web:80", "10.1.0.1", "10.1.0.1:0", "x" * 600])
def test_what_is_no_address_is_refused_with_400(lab: Lab, authority: str) -> None:
    mesh = Mesh(lab)
    _, answers = mesh.ask(authority)
    lab.go(until=lambda: answers.log)
    assert answers.log == [400]


def test_a_stranger_at_the_address_of_a_workload_is_not_taken_for_it(lab: Lab) -> None:
    mesh = Mesh(lab)
    stranger = CALLER.identity.__class__("cluster.local", "shop", "stranger")
    mesh.acceptor._identity = stranger
    client, _ = mesh.open("10.1.0.1:80")
    client.write(GET)
    server, asked = mesh.serve()
    lab.go(until=lambda: asked.got)
    server.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    lab.go(until=lambda: counted(mesh))
    (labels,) = counted(mesh)
    assert (labels.source_workload, labels.source_principal) == ("unknown", str(stranger))


def asking(lab: Lab, *items: object) -> tuple[Mesh, OnDemand]:
    """A waypoint that is sent what it serves, and asks for the rest."""
    mesh = Mesh(lab, *(items or (ME, *SERVERS, SERVICE)))
    on_demand = mesh.parts.on_demand
    on_demand.connect()
    on_demand.served()
    return mesh, on_demand


def asked(on_demand: OnDemand) -> list[str]:
    request = on_demand.take()
    return list(request.resource_names_subscribe) if request is not None else []


def test_a_tunnel_waits_until_it_is_known_who_calls(lab: Lab) -> None:
    mesh, on_demand = asking(lab)
    tunnel, answers = mesh.ask("10.1.0.1:80")
    lab.go()
    lab.clock.move(0.3)
    lab.go()
    assert (asked(on_demand), answers.log, mesh.parts.waiting) == (["/10.0.0.2"], [], 1)
    change(mesh, CALLER)
    on_demand.received([Resource(name=CALLER.uid, aliases=["/10.0.0.2"])], [])
    lab.clock.move(0.01)
    lab.go(until=lambda: answers.log)
    listener = Listener()
    listener.tunnel = tunnel
    tunnel.attach(listener)
    tunnel.write(GET)
    server, got = mesh.serve()
    lab.go(until=lambda: got.got)
    server.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    lab.go(until=lambda: counted(mesh))
    (labels,) = counted(mesh)
    assert (labels.source_workload, labels.source_principal) == ("caller", str(CALLER.identity))
    assert mesh.parts.waiting == 0
    mesh.ask("10.1.0.1:80")
    assert asked(on_demand) == []


@pytest.mark.parametrize("somebody", [True, False])
def test_a_caller_of_whom_nothing_is_heard_is_served_by_its_identity(lab: Lab, somebody: bool) -> None:
    """Policies ask for nothing else; telemetry does not know its workload."""
    mesh, on_demand = asking(lab)
    _, answers = mesh.ask("10.1.0.1:80")
    lab.go()
    if not somebody:
        on_demand.received([], ["/10.0.0.2"])
    lab.clock.move(0.1 if not somebody else 1.1)
    lab.go(until=lambda: answers.log)
    assert answers.log == ["established"]
    assert on_demand.unanswered == int(somebody)


def test_without_a_control_plane_nobody_waits(lab: Lab) -> None:
    mesh, on_demand = asking(lab)
    on_demand.disconnect()
    _, answers = mesh.ask("10.1.0.1:80")
    _, refused = mesh.ask("10.9.9.9:80")
    lab.go(until=lambda: answers.log and refused.log)
    assert (answers.log, refused.log, mesh.parts.waiting) == (["established"], [404], 0)


@pytest.mark.parametrize("authority", ["10.2.0.9:80", "[fd00::9]:80"])
def test_what_is_called_and_not_known_is_asked_for_and_refused_once_it_is_nobodys(
    lab: Lab, authority: str
) -> None:
    mesh, on_demand = asking(lab, ME, CALLER, *SERVERS, SERVICE)
    _, answers = mesh.ask(authority)
    lab.go()
    name = f"/{authority.rpartition(':')[0].strip('[]')}"
    assert (asked(on_demand), answers.log) == ([name], [])
    on_demand.received([], [name])
    lab.clock.move(0.06)
    lab.go(until=lambda: answers.log)
    assert (answers.log, mesh.parts.waiting) == ([404], 0)
    assert not mesh.tunnels.asked


def test_what_comes_into_what_is_served_while_it_is_called_is_served(lab: Lab) -> None:
    mesh, on_demand = asking(lab, ME, CALLER)
    _, answers = mesh.ask("10.1.0.1:80")
    lab.go()
    assert asked(on_demand) == ["/10.1.0.1"]
    change(mesh, replace(SERVICE, waypoint=None))
    on_demand.received([Resource(name=str(SERVICE.key), aliases=["/10.1.0.1"])], [])
    lab.clock.move(0.06)
    lab.go()
    assert answers.log == []
    change(mesh, SERVICE, *SERVERS)
    lab.clock.move(0.06)
    lab.go(until=lambda: answers.log)
    assert answers.log == ["established"]
