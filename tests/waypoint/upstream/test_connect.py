"""Servers: who is called, what is kept, what is shared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import world_of
from tests.hbone.conftest import contexts, lab
from tests.hbone.peers import Lab
from tests.waypoint.mesh import CALLER, ME, PORTS, SERVERS, SERVICE, WEB, Mesh, one_server, workload
from ztunnel.errors import NoDestination
from ztunnel.hbone.request import render_response
from ztunnel.model.address import Endpoint, OriginalDestination
from ztunnel.model.service_traffic import ClientTraffic, ServiceTraffic
from ztunnel.model.traffic import PortTraffic, Traffic
from ztunnel.model.workload import TunnelProtocol
from ztunnel.state.change import Change
from ztunnel.state.delta import apply

__all__ = ["contexts", "lab"]
VIP = OriginalDestination(SERVICE.addresses[0], 80)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def test_every_endpoint_is_chosen_and_another_than_the_one_to_be_avoided(lab: Lab) -> None:
    mesh = Mesh(lab)
    found = {mesh.choose(VIP).endpoint for _ in range(50)}
    assert found == {Endpoint(each.addresses[0], 8080) for each in SERVERS}
    avoid = Endpoint(SERVERS[0].addresses[0], 8080)
    assert {mesh.choose(VIP, avoid).endpoint for _ in range(50)} == found - {avoid}


def test_what_is_known_of_an_endpoint_is_kept_until_the_world_changes(lab: Lab) -> None:
    mesh = Mesh(lab, ME, CALLER, SERVERS[0], SERVICE)
    first = mesh.choose(VIP)
    assert mesh.choose(VIP) is first
    assert first.key.source == ME.identity
    assert first.key.destinations == {SERVERS[0].identity}
    other = replace(SERVERS[0], service_account="another")
    mesh.hold.publish(world_of(ME, CALLER, other, SERVICE), Change())
    mesh.hold.world = world_of(ME, CALLER, other, SERVICE)
    assert mesh.choose(VIP).key.destinations == {other.identity}


def test_what_is_not_in_the_mesh_is_called_without_a_tunnel(lab: Lab) -> None:
    outside = replace(SERVERS[0], protocol=TunnelProtocol.NONE)
    target = Mesh(lab, ME, CALLER, outside, SERVICE).choose(VIP)
    assert (target.key, target.head) == (None, None)
    assert target.endpoint == Endpoint(SERVERS[0].addresses[0], 8080)
    assert target.destination == outside


def test_without_an_endpoint_or_a_workload_of_its_own_nothing_is_called(lab: Lab) -> None:
    with pytest.raises(NoDestination, match="no healthy upstream"):
        Mesh(lab, ME, CALLER, SERVICE).choose(VIP)
    with pytest.raises(NoDestination, match="not in the mesh"):
        Mesh(lab, CALLER, *SERVERS, SERVICE).choose(VIP)


def test_clients_share_spare_connections_one_after_the_other(lab: Lab) -> None:
    mesh = one_server(lab)
    first, heard = mesh.open("10.1.0.1:80")
    first.write(GET)
    server, _ = mesh.serve()
    server.write(OK)
    lab.go(until=lambda: heard.got)
    second, heard = mesh.open("10.1.0.1:80")
    second.write(GET)
    lab.go()
    server.write(OK)
    lab.go(until=lambda: heard.got)
    assert len(mesh.tunnels.asked) == 1


def test_what_is_spare_for_long_is_closed(lab: Lab) -> None:
    mesh = one_server(lab)
    client, heard = mesh.open("10.1.0.1:80")
    client.write(GET)
    server, there = mesh.serve()
    server.write(OK)
    lab.go(until=lambda: heard.got)
    mesh.servers.look(lab.clock() + 10, 60.0)
    lab.go()
    assert there.words == []
    mesh.servers.look(lab.clock() + 61, 60.0)
    lab.go(until=lambda: there.words)
    assert there.words == ["lost"]
    client.write(GET)
    assert mesh.asked(2)[0] == "10.0.0.3"


def test_a_spare_connection_that_has_gone_is_not_used(lab: Lab) -> None:
    mesh = one_server(lab)
    client, heard = mesh.open("10.1.0.1:80")
    client.write(GET)
    server, _ = mesh.serve()
    server.write(OK)
    lab.go(until=lambda: heard.got)
    server.finish()
    lab.go()
    client.write(GET)
    mesh.asked(2)


def test_each_endpoint_is_tried_before_one_is_tried_twice(lab: Lab) -> None:
    third = workload("server-3", "10.0.0.5", WEB, PORTS)
    mesh = Mesh(lab, ME, CALLER, *SERVERS, third, SERVICE)
    tried = set()
    client, heard = mesh.open("10.1.0.1:80")
    client.write(GET)
    for count in (1, 2, 3):
        wanted, server = mesh.asked(count)
        tried.add(wanted)
        server.refuse(render_response(503))
    lab.go(until=lambda: heard.got)
    assert len(tried) == 3


def test_what_a_rule_asks_for_and_nobody_can_do_is_not_called_around(lab: Lab) -> None:
    mesh = Mesh(lab)
    client, heard = mesh.open("10.1.0.1:80")
    client.write(GET)
    server, asked = mesh.serve()
    lab.go(until=lambda: asked.got.endswith(b"\r\n\r\n"))
    server.write(OK)
    lab.go(until=lambda: heard.got.endswith(b"\r\n\r\n"))
    refused = Traffic(unsupported=("proxyProtocol", "tunnel"))
    traffic = ServiceTraffic(WEB, (ClientTraffic("", PortTraffic(refused)),))
    mesh.hold.publish(*apply(mesh.hold.world, [traffic]))
    why = b"DestinationRule proxyProtocol and tunnel: not supported"
    client.write(GET)  # a connection that stands is not used either
    lab.go(until=lambda: heard.got.endswith(why))
    assert b"HTTP/1.1 503 " in heard.got
    assert " 503 UF " in mesh.lines[-1]
    _, answers = mesh.ask("10.1.0.1:5432")
    lab.go(until=lambda: answers.log)
    assert answers.log == [503]
    assert len(mesh.tunnels.asked) == 1
