"""Calls of endpoints: by tunnels that are refused, given up or late, and connections that are passed on."""

from __future__ import annotations

from tests.hbone.conftest import contexts, lab
from tests.hbone.inner import Listener
from tests.hbone.peers import Lab
from tests.waypoint.mesh import SERVERS, SERVICE, WEB, Mesh, one_server
from ztunnel.errors import HandshakeFailed, Unreachable
from ztunnel.hbone.request import render_response
from ztunnel.l7.balancing.circuit import Limit
from ztunnel.model.address import OriginalDestination
from ztunnel.model.service_traffic import ClientTraffic, ServiceTraffic
from ztunnel.model.traffic import Pool, PortTraffic, Traffic
from ztunnel.state.delta import apply
from ztunnel.waypoint.upstream.spot import spot_of

__all__ = ["contexts", "lab"]
VIP = OriginalDestination(SERVICE.addresses[0], 80)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def test_a_policy_that_refuses_is_not_asked_again(lab: Lab) -> None:
    mesh = Mesh(lab)
    client, heard = mesh.open("10.1.0.1:80")
    client.write(GET)
    _, server = mesh.asked()
    server.refuse(render_response(401))
    lab.go(until=lambda: heard.got)
    assert heard.got.startswith(b"HTTP/1.1 503 ")
    assert b"http status: 401" in heard.got
    assert len(mesh.tunnels.asked) == 1


def test_an_endpoint_that_is_unavailable_is_passed_over(lab: Lab) -> None:
    mesh = Mesh(lab)
    client, _ = mesh.open("10.1.0.1:80")
    client.write(GET)
    first, server = mesh.asked()
    server.refuse(render_response(503))
    second, _ = mesh.asked(2)
    assert first != second


def test_calls_that_nobody_waits_for_are_given_up(lab: Lab) -> None:
    mesh = one_server(lab)
    failures: list = []
    calling = mesh.servers.call(spot_of(mesh.choose(VIP), None), failures.append, failures.append)
    assert calling.live
    mesh.asked()
    calling.cancel()
    assert not calling.live
    assert not calling.still_wants()
    calling.fail(HandshakeFailed("late"))
    assert failures == []
    assert WEB in SERVERS[0].services


def limited(lab: Lab, **limits) -> Mesh:
    """A mesh whose connections are limited so."""
    mesh = one_server(lab)
    traffic = ServiceTraffic(WEB, (ClientTraffic("", PortTraffic(Traffic(pool=Pool(**limits)))),))
    mesh.hold.publish(*apply(mesh.hold.world, [traffic]))
    return mesh


def passed(lab: Lab, mesh: Mesh, count: int = 1):
    """A connection that is passed on: the client's tunnel, and the server's with what it hears."""
    tunnel, answers = mesh.ask("10.1.0.1:5432")
    server, heard = mesh.serve(count)
    lab.go(until=lambda: answers.log)
    listener = Listener()
    listener.tunnel = tunnel
    tunnel.attach(listener)
    return tunnel, server, heard


def used(mesh: Mesh) -> int:
    (circuit,) = mesh.here.clusters._circuits.values()
    return circuit.used[Limit.CONNECTIONS]


def test_a_connection_more_than_there_may_be_is_refused(lab: Lab) -> None:
    mesh = limited(lab, connections=1)
    tunnel, _, _ = passed(lab, mesh)
    assert used(mesh) == 1
    _, answers = mesh.ask("10.1.0.1:5432")
    lab.go(until=lambda: answers.log)
    assert answers.log == [503]
    assert " UO " in mesh.lines[-1]
    tunnel.abort(Unreachable("enough"))
    lab.go(until=lambda: used(mesh) == 0)
    passed(lab, mesh, 2)


def test_a_connection_that_cannot_be_made_is_given_back(lab: Lab) -> None:
    mesh = limited(lab, connections=1)
    mesh.tunnels.refuses["10.0.0.3"] = Unreachable("nobody is there")
    _, answers = mesh.ask("10.1.0.1:5432")
    lab.go(until=lambda: answers.log)
    assert answers.log == [503]
    assert used(mesh) == 0


def test_what_is_idle_for_too_long_is_cut_and_what_moves_is_not(lab: Lab) -> None:
    mesh = limited(lab, idle_seconds=10.0)
    tunnel, _, heard = passed(lab, mesh)
    for _ in range(3):
        lab.clock.move(9.0)
        tunnel.write(b"x")
        lab.go()
    assert bytes(heard.got) == b"xxx"
    assert heard.words == []
    for _ in range(2):
        lab.clock.move(10.1)
        lab.go()
    lab.go(until=lambda: heard.words)
    assert "idleTimeout" in mesh.lines[-1]
    assert used(mesh) == 0


def test_what_is_too_old_is_cut_though_it_moves(lab: Lab) -> None:
    mesh = limited(lab, connection_seconds=10.0)
    tunnel, _, heard = passed(lab, mesh)
    lab.clock.move(9.0)
    tunnel.write(b"x")
    lab.go()
    assert heard.words == []
    lab.clock.move(2.0)
    lab.go(until=lambda: heard.words)
    assert "maxConnectionDuration" in mesh.lines[-1]


def test_a_connect_has_the_time_that_its_rule_gives(lab: Lab) -> None:
    mesh = limited(lab, connect_seconds=2.0)
    _, answers = mesh.ask("10.1.0.1:5432")
    mesh.asked()
    lab.clock.move(2.5)
    lab.go(until=lambda: answers.log)
    assert answers.log == [503]
    assert "connection timed out" in mesh.lines[-1]
