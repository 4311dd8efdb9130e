"""A waypoint as its clients see it: what it does with what comes through a tunnel, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.hbone.conftest import contexts, lab
from tests.hbone.peers import Lab
from tests.waypoint.mesh import (
    CALLER,
    GET,
    GUARDED,
    ME,
    NONE_ALLOWED,
    REFUSED,
    SERVERS,
    SERVICE,
    WEB,
    WP,
    Mesh,
    change,
    counted,
    policy,
)
from ztunnel.errors import Unreachable
from ztunnel.http2.frame import PREFACE
from ztunnel.model.http_policy import HttpAction, HttpPolicy
from ztunnel.model.service import AppProtocol, Service
from ztunnel.model.service_traffic import ClientTraffic, ServiceTraffic
from ztunnel.model.traffic import Pool, PortTraffic, Traffic
from ztunnel.state.delta import apply
from ztunnel.waypoint.reporting.scope import Log

__all__ = ["contexts", "lab"]


def test_a_request_passes_and_is_reported(lab: Lab) -> None:
    mesh = Mesh(lab)
    client, heard = mesh.open("10.1.0.1:80")
    client.write(GET)
    _server, asked = mesh.serve()
    lab.go(until=lambda: b"\r\n\r\n" in asked.got)
    assert asked.got.startswith(b"GET /x HTTP/1.1\r\nhost: web\r\n")
    _server.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    lab.go(until=lambda: heard.got.endswith(b"hi"))
    lab.go(until=lambda: mesh.lines)
    (line,) = mesh.lines
    assert '"GET /x HTTP/1.1" 200 - via_upstream' in line
    assert " inbound-vip|80|http|web.shop.svc.cluster.local " in line
    assert " 10.1.0.1:80 10.0.0.2:41234 " in line
    (labels,) = counted(mesh)
    assert labels.reporter == "waypoint"
    assert (labels.source_workload, labels.source_principal) == ("caller", str(CALLER.identity))
    assert labels.destination_service == "web.shop.svc.cluster.local"
    assert labels.destination_workload in ("server-1", "server-2")
    assert (labels.response_code, labels.request_protocol) == ("200", "http")


def test_an_answer_has_left_before_anything_is_said_of_it(lab: Lab) -> None:
    mesh = Mesh(lab)
    unsent: list[object] = []
    mesh.scope.logs = (Log(lambda record, context: unsent.append(mesh.server.pipe.block)),)
    client, heard = mesh.open("10.1.0.1:80")
    client.write(GET)
    server, asked = mesh.serve()
    lab.go(until=lambda: b"\r\n\r\n" in asked.got)
    server.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    lab.go(until=lambda: heard.got and unsent)
    assert unsent == [None]


@pytest.mark.parametrize("guarded", ["what is called", "the waypoint"])
def test_what_a_policy_concerns_that_has_not_come_is_refused_until_it_has(lab: Lab, guarded: str) -> None:
    own = Service("wp", "shop", WP.hostname)
    service = GUARDED if guarded == "what is called" else SERVICE
    if guarded == "the waypoint":
        own = replace(own, guards=("shop/p",))
    mesh = Mesh(lab, ME, CALLER, *SERVERS, service, own)
    client, heard = mesh.open("10.1.0.1:80")
    client.write(GET)
    lab.go(until=lambda: heard.got and mesh.lines)
    assert heard.got.startswith(b"HTTP/1.1 403 ")
    assert heard.got.endswith(b"RBAC: access denied")
    assert " 403 - policy_not_enforced[shop/p] " in mesh.lines[-1]
    _, answers = mesh.ask("10.1.0.1:5432")
    lab.go(until=lambda: answers.log)
    assert answers.log == [401]
    other, cut = mesh.open("10.1.0.1:90")
    other.write(b"\x16\x03\x01")
    lab.go(until=lambda: cut.words)
    assert cut.words == ["lost"]
    assert not mesh.tunnels.asked
    change(mesh, HttpPolicy("p", "shop", HttpAction.ALLOW, ((),)))
    client.write(GET)
    _, server = mesh.serve()
    lab.go(until=lambda: server.got)


@pytest.mark.parametrize(
    ("action", "path", "details"),
    [
        (HttpAction.ALLOW, b"/x", ""),
        (HttpAction.ALLOW, b"/y", NONE_ALLOWED),
        (HttpAction.DENY, b"/x", REFUSED),
        (HttpAction.DENY, b"/y", ""),
    ],
)
def test_each_request_is_judged(lab: Lab, action: HttpAction, path: bytes, details: str) -> None:
    mesh = Mesh(lab, ME, CALLER, *SERVERS, GUARDED, policy(action, "/x"))
    client, heard = mesh.open("10.1.0.1:80")
    client.write(GET.replace(b"/x", path))
    if not details:
        mesh.serve()
        return
    lab.go(until=lambda: mesh.lines and heard.got.endswith(b"denied"))
    assert heard.got.startswith(b"HTTP/1.1 403 ")
    assert f" 403 - {details} " in mesh.lines[0]
    assert not mesh.tunnels.asked
    (labels,) = counted(mesh)
    assert (labels.response_code, labels.response_flags) == ("403", "-")
    refuses = "shop/p" if details is REFUSED else "none allowed"
    assert dict(mesh.metrics._denials.samples()) == {("waypoint", refuses): 1}
    # The connection is the client's to use again.
    client.write(GET.replace(b"/x", b"/y" if action is HttpAction.DENY else b"/x"))
    mesh.serve()


def test_what_custom_matches_is_refused_where_nobody_can_be_asked(lab: Lab) -> None:
    mesh = Mesh(lab, ME, CALLER, *SERVERS, GUARDED, replace(policy(HttpAction.CUSTOM, "/x"), provider="who"))
    client, _ = mesh.open("10.1.0.1:80")
    client.write(GET)
    lab.go(until=lambda: mesh.lines)
    assert f" 403 UAEX {REFUSED} " in mesh.lines[0]
    assert "there is no provider of the name 'who'" in mesh.lines[0]


def test_a_request_under_way_is_ended_when_a_policy_refuses_it_now(lab: Lab) -> None:
    mesh = Mesh(lab)
    client, heard = mesh.open("10.1.0.1:80")
    client.write(GET)
    _, asked = mesh.serve()
    lab.go(until=lambda: asked.got)
    change(mesh, GUARDED, policy(HttpAction.ALLOW, "/x"))  # which lets it go on
    assert not mesh.lines
    change(mesh, policy(HttpAction.DENY, "/y"))
    assert not mesh.lines
    change(mesh, policy(HttpAction.DENY, "/x"))
    lab.go(until=lambda: mesh.lines and b"denied" in heard.got)
    assert heard.got.startswith(b"HTTP/1.1 403 ")
    assert f" 403 - {REFUSED} " in mesh.lines[0]
    assert '"a change of policy"' in mesh.lines[0]
    lab.go(until=lambda: asked.words)
    assert not mesh.parts.guarded


def test_a_response_under_way_is_cut_when_a_policy_refuses_it_now(lab: Lab) -> None:
    mesh = Mesh(lab)
    client, heard = mesh.open("10.1.0.1:80")
    client.write(GET)
    server, asked = mesh.serve()
    lab.go(until=lambda: asked.got)
    server.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi")
    lab.go(until=lambda: heard.got.endswith(b"hi"))
    change(mesh, GUARDED, policy(HttpAction.DENY, "/x"))
    lab.go(until=lambda: heard.words and mesh.lines)
    assert heard.words == ["lost"]
    assert f" 200 - {REFUSED} " in mesh.lines[0]


def test_a_websocket_is_ended_when_a_policy_refuses_it_now(lab: Lab) -> None:
    mesh = Mesh(lab)
    client, heard = mesh.open("10.1.0.1:80")
    client.write(GET[:-2] + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    server, asked = mesh.serve()
    lab.go(until=lambda: asked.got)
    server.write(b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhi")
    lab.go(until=lambda: heard.got.endswith(b"hi"))
    change(mesh, GUARDED, policy(HttpAction.ALLOW, "/x"))
    client.write(b"still there")
    lab.go(until=lambda: asked.got.endswith(b"still there"))
    change(mesh, policy(HttpAction.ALLOW, "/y"))
    lab.go(until=lambda: heard.words and asked.words and mesh.lines)
    assert heard.words == ["lost"]
    assert f" 101 - {NONE_ALLOWED} " in mesh.lines[0]


def test_what_is_tried_and_audited_is_told(lab: Lab) -> None:
    told = []
    tried = replace(policy(HttpAction.DENY, "/x"), dry_run=True)
    audited = replace(policy(HttpAction.AUDIT, "/x"), name="q")
    service = replace(SERVICE, guards=("shop/p", "shop/q"))
    mesh = Mesh(lab, ME, CALLER, *SERVERS, service, tried, audited)
    mesh.parts.note = lambda *what: told.append(what)
    client, _ = mesh.open("10.1.0.1:80")
    client.write(GET)
    mesh.serve()
    ((decision, who, called),) = told
    assert [(one.policy, one.refuses) for one in decision.tried] == [("shop/p", True)]
    assert decision.audited == ("shop/q",)
    assert (who, called) == (str(CALLER.identity), str(SERVICE.key))


def test_where_no_endpoint_answers_the_client_gets_a_503(lab: Lab) -> None:
    mesh = Mesh(lab)
    for ip in ("10.0.0.3", "10.0.0.4"):
        mesh.tunnels.refuses[ip] = Unreachable("nobody is there")
    client, heard = mesh.open("10.1.0.1:80")
    client.write(GET)
    lab.go(until=lambda: b"\r\n\r\nupstream" in heard.got)
    assert heard.got.startswith(b"HTTP/1.1 503 ")
    assert " 503 URX,UF " in mesh.lines[0]
    (labels,) = counted(mesh)
    assert (labels.response_code, labels.response_flags) == ("503", "URX,UF")


def test_one_endpoint_that_is_not_there_is_passed_over(lab: Lab) -> None:
    mesh = Mesh(lab)
    mesh.tunnels.refuses["10.0.0.3"] = Unreachable("nobody is there")
    for number in range(1, 8):
        client, _heard = mesh.open("10.1.0.1:80")
        client.write(GET)
        assert mesh.asked(number)[0] == "10.0.0.4"


def test_what_is_spoken_on_an_unnamed_port_is_found_out(lab: Lab) -> None:
    mesh = Mesh(lab)
    client, _ = mesh.open("10.1.0.1:90")
    client.write(GET[:5])
    lab.go()
    assert not mesh.tunnels.asked
    client.write(GET[5:])
    _, heard = mesh.serve()
    lab.go(until=lambda: b"x-request-id: an-id" in heard.got)
    other, _ = mesh.open("10.1.0.1:90")
    other.write(b"\x16\x03\x01")
    _, heard = mesh.serve(2)
    lab.go(until=lambda: bytes(heard.got) == b"\x16\x03\x01")
    assert mesh.parts.undetected == 0


def test_a_client_that_says_nothing_hears_from_its_server_after_a_second(lab: Lab) -> None:
    mesh = Mesh(lab)
    client, heard = mesh.open("10.1.0.1:90")
    lab.go()
    assert not mesh.tunnels.asked
    lab.clock.move(1.1)
    server, there = mesh.serve()
    server.write(b"220 ready\r\n")
    lab.go(until=lambda: heard.got)
    client.write(b"HELO\r\n")
    lab.go(until=lambda: there.got)
    assert (bytes(heard.got), bytes(there.got)) == (b"220 ready\r\n", b"HELO\r\n")
    assert mesh.parts.undetected == 1


def test_http2_with_prior_knowledge_goes_on_as_http2(lab: Lab) -> None:
    import h2.config
    import h2.connection
    import h2.events

    mesh = Mesh(lab)
    client, heard = mesh.open("10.1.0.1:90")
    near = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
    near.initiate_connection()
    fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")]
    near.send_headers(1, fields, end_stream=True)
    near.send_headers(3, fields, end_stream=True)
    client.write(near.data_to_send())
    server, there = mesh.serve()
    lab.go(until=lambda: len(there.got) > len(PREFACE))
    assert there.got.startswith(PREFACE)
    far = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
    far.initiate_connection()
    ended: list = []

    def pump() -> bool:
        for each in [event for event in far.receive_data(bytes(there.got)) if hasattr(event, "headers")]:
            far.send_headers(each.stream_id, [(b":status", b"200")], end_stream=True)
        there.got.clear()
        server.write(far.data_to_send())
        events = near.receive_data(bytes(heard.got))
        heard.got.clear()
        ended.extend(each for each in events if isinstance(each, h2.events.StreamEnded))
        client.write(near.data_to_send())
        return len(ended) >= 1

    lab.go(until=pump)
    lab.go(until=lambda: mesh.lines)
    assert '"GET / HTTP/2" 200 - via_upstream' in mesh.lines[0]


@pytest.mark.parametrize(
    ("protocol", "first", "begins"),
    [
        (AppProtocol.HTTP2, GET, PREFACE),
        (AppProtocol.GRPC, GET, PREFACE),
        (AppProtocol.HTTP, b"", b"GET / HTTP/1.1\r\nhost: a\r\n"),
        (AppProtocol.HTTP, b"application/grpc", PREFACE),
        (AppProtocol.HTTP, GET, b"GET /x HTTP/1.1\r\n"),
    ],
)
def test_the_port_says_in_which_version_the_server_is_asked(lab: Lab, protocol, first, begins) -> None:
    import h2.config
    import h2.connection

    service = replace(SERVICE, protocols=((80, protocol),))
    mesh = Mesh(lab, ME, CALLER, *SERVERS, service)
    client, _ = mesh.open("10.1.0.1:80")
    if first == GET:
        client.write(GET)
    else:
        near = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        near.initiate_connection()
        fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")]
        near.send_headers(1, [*fields, (b"content-type", first)] if first else fields, end_stream=True)
        client.write(near.data_to_send())
    _, there = mesh.serve()
    lab.go(until=lambda: len(there.got) >= len(begins))
    assert there.got.startswith(begins)


def test_what_cannot_be_switched_to_in_http2_is_refused(lab: Lab) -> None:
    mesh = Mesh(lab, ME, CALLER, *SERVERS, replace(SERVICE, protocols=((80, AppProtocol.GRPC),)))
    client, heard = mesh.open("10.1.0.1:80")
    client.write(GET[:-2] + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    lab.go(until=lambda: heard.got)
    assert heard.got.startswith(b"HTTP/1.1 403 ")
    lab.go(until=lambda: mesh.lines)
    assert " 403 - upgrade_failed - " in mesh.lines[0]
    assert not mesh.tunnels.asked


def test_a_websocket_outlives_changes_that_are_not_about_it(lab: Lab) -> None:
    """envoyproxy/gateway#8889: it was drained when the same configuration came once more."""
    mesh = Mesh(lab)
    client, heard = mesh.open("10.1.0.1:80")
    switch = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    client.write(b"GET /ws HTTP/1.1\r\nHost: web\r\n" + switch + b"\r\n")
    server, asked = mesh.serve()
    lab.go(until=lambda: b"\r\n\r\n" in asked.got)
    server.write(b"HTTP/1.1 101 Switching Protocols\r\n" + switch + b"\r\n")
    lab.go(until=lambda: b"\r\n\r\n" in heard.got)
    (other,) = (one for one in SERVERS if str(one.addresses[0]) != mesh.tunnels.asked[-1][0])
    limits = ServiceTraffic(WEB, (ClientTraffic("", PortTraffic(Traffic(pool=Pool(connections=1)))),))
    for number, change_ in enumerate(([SERVICE], [limits], [replace(other, capacity=7)], [SERVICE])):
        mesh.hold.publish(*apply(mesh.hold.world, change_))
        said = b"after %d" % number
        client.write(said)
        lab.go(until=lambda said=said: asked.got.endswith(said))
        server.write(said)
        lab.go(until=lambda said=said: heard.got.endswith(said))
    assert not mesh.lines
