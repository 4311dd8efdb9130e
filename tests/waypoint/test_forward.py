"""What is no HTTP, through a waypoint: passed on as it is, as far as policies let it."""

from __future__ import annotations

from tests.hbone.conftest import contexts, lab
from tests.hbone.inner import Listener
from tests.hbone.peers import Lab
from tests.waypoint.mesh import (
    CALLER,
    GUARDED,
    ME,
    NONE_ALLOWED,
    REFUSED,
    SERVERS,
    Mesh,
    change,
    policy,
)
from ztunnel.errors import Unreachable
from ztunnel.hbone.request import render_response
from ztunnel.model.http_policy import HttpAction, HttpPolicy

__all__ = ["contexts", "lab"]


def test_tcp_passes_as_it_is_and_is_answered_when_the_server_stands(lab: Lab) -> None:
    mesh = Mesh(lab)
    tunnel, answers = mesh.ask("10.1.0.1:5432")
    mesh.asked()
    assert answers.log == []
    server, heard = mesh.serve()
    lab.go(until=lambda: answers.log)
    assert answers.log == ["established"]
    tunnel.write(b"\x00\x01ping")
    tunnel.finish()
    lab.go(until=lambda: heard.words)
    assert bytes(heard.got) == b"\x00\x01ping"
    server.write(b"pong")
    server.finish()
    lab.go(until=lambda: mesh.lines)
    assert '"- - -" 0 - - - "-" 6 4 ' in mesh.lines[0]
    assert "inbound-vip|5432|tcp|web" in mesh.lines[0]
    (row,) = mesh.metrics.rows(0.0)
    assert (row.labels.reporter, row.received_bytes, row.sent_bytes, row.closed) == ("waypoint", 6, 4, 1)


def test_tcp_to_a_server_that_is_not_there_is_refused_with_503(lab: Lab) -> None:
    mesh = Mesh(lab)
    for ip in ("10.0.0.3", "10.0.0.4"):
        mesh.tunnels.refuses[ip] = Unreachable("nobody is there")
    _, answers = mesh.ask("10.1.0.1:5432")
    lab.go(until=lambda: answers.log)
    assert answers.log == [503]
    assert " UF " in mesh.lines[0]
    assert "nobody is there" in mesh.lines[0]


def test_a_connection_that_is_no_http_is_judged_by_what_it_is(lab: Lab) -> None:
    """A rule about a path never lets it through, and refuses it."""
    for action, refuses in ((HttpAction.ALLOW, "none allowed"), (HttpAction.DENY, "explicitly denied by")):
        mesh = Mesh(lab, ME, CALLER, *SERVERS, GUARDED, policy(action, "/x"))
        _, answers = mesh.ask("10.1.0.1:5432")
        lab.go(until=lambda answers=answers: answers.log)
        assert answers.log == [401]
        details = NONE_ALLOWED if action is HttpAction.ALLOW else REFUSED
        assert f" 0 - - {details} " in mesh.lines[0]
        assert refuses in mesh.lines[0]
        assert "DENY" in {row.labels.response_flags for row in mesh.metrics.rows(0.0)}


def test_a_connection_that_is_no_http_is_ended_when_a_policy_refuses_it_now(lab: Lab) -> None:
    mesh = Mesh(lab)
    tunnel, answers = mesh.ask("10.1.0.1:5432")
    _server, asked = mesh.serve()
    lab.go(until=lambda: answers.log)
    heard = Listener()
    heard.tunnel = tunnel
    tunnel.attach(heard)
    tunnel.write(b"ping")
    lab.go(until=lambda: asked.got == b"ping")
    change(mesh, GUARDED, HttpPolicy("p", "shop", HttpAction.ALLOW, ((),)))
    tunnel.write(b"ping")
    lab.go(until=lambda: asked.got == b"pingping")
    change(mesh, HttpPolicy("p", "shop", HttpAction.DENY, ((),)))
    lab.go(until=lambda: heard.words and asked.words and mesh.lines)
    assert heard.words == ["lost"]
    assert f" 0 - - {REFUSED} " in mesh.lines[0]
    assert "connection closed due to policy change: explicitly denied by: shop/p" in mesh.lines[0]
    assert not mesh.parts.guarded


def test_a_connection_that_is_being_made_is_refused_when_a_policy_refuses_it_now(lab: Lab) -> None:
    mesh = Mesh(lab)
    _, answers = mesh.ask("10.1.0.1:5432")
    mesh.asked()
    change(mesh, GUARDED, HttpPolicy("p", "shop", HttpAction.DENY, ((),)))
    lab.go(until=lambda: answers.log)
    assert answers.log == [401]
    assert not mesh.parts.guarded


def test_a_client_that_gives_up_while_its_server_is_called(lab: Lab) -> None:
    mesh = Mesh(lab)
    tunnel, answers = mesh.ask("10.1.0.1:5432")
    _, server = mesh.asked()
    tunnel.abort(Unreachable("given up"))
    lab.go()
    server.accept(render_response(200), Quiet())
    lab.go(until=lambda: mesh.lines)
    assert answers.log == []
    assert not mesh.parts.common.live


class Quiet:
    def received(self, untrusted) -> None:
        raise AssertionError("nobody has said anything")

    def ended(self) -> None:
        """Of no interest."""

    def writable(self) -> None:
        """Of no interest."""

    def lost(self, error) -> None:
        """It is to be expected."""
