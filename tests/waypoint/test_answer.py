"""Who asks a waypoint for a tunnel: what it stands for, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import world_of
from tests.hbone.conftest import contexts, lab
from tests.hbone.peers import Lab
from tests.waypoint.mesh import (
    CALLER,
    GET,
    ME,
    SERVERS,
    SERVICE,
    Mesh,
    counted,
)
from ztunnel.errors import Unreachable
from ztunnel.state.delta import Change

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
