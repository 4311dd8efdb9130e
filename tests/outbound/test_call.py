"""The first call of a pair: dialled from the application's own port, carried, ended by what touches either
end."""

from __future__ import annotations

import socket

import pytest

from tests.builders import policy, strict
from tests.flow.driving import drive
from tests.inbound.parts import Sockets
from tests.outbound.direct import CLIENT, DRAINED, SERVER, WEB, Instead, begin, stand
from tests.outbound.parts import Desk, address_of, is_reset
from ztunnel.flow.engine import Engine
from ztunnel.model.address import Endpoint, parse_endpoint


@pytest.fixture
def desk(engine: Engine, sockets: Sockets) -> Desk:
    made = Desk(engine, sockets, CLIENT, SERVER, WEB)
    made.pod(CLIENT, 1)
    made.pod(SERVER, 2)
    return made


@pytest.fixture
def listener(sockets: Sockets) -> socket.socket:
    return sockets.listen("127.0.0.2")


def test_a_pod_that_cannot_be_dialled_from_is_left_to_the_other_way(desk: Desk) -> None:
    desk.direct.pods[CLIENT.uid].netns.gone = True  # type: ignore[attr-defined]
    call, _, begun = begin(desk, parse_endpoint("127.0.0.2:8080"))
    assert not begun
    assert call.carrier is None
    assert desk.live.of(CLIENT.uid) == frozenset()
    call.fail(DRAINED)


def test_an_address_that_the_pod_does_not_have_is_left_to_the_other_way(desk: Desk, engine: Engine) -> None:
    desk.publish(CLIENT.at("192.0.2.1"))
    instead = Instead()
    call, _, _ = begin(desk, parse_endpoint("127.0.0.2:8080"), instead=instead)
    drive(engine)
    assert instead == [1]
    assert call.carrier is None
    assert desk.kernel.admitted == set()
    call.fail(DRAINED)


def test_the_server_sees_the_port_that_the_application_has(
    desk: Desk, engine: Engine, listener: socket.socket
) -> None:
    call, _, server = stand(desk, listener)
    assert server.getpeername()[1] == call.peer.port
    call.abort(DRAINED)


def test_where_the_application_itself_calls_the_server_from_that_port_another_one_serves(
    desk: Desk, engine: Engine, listener: socket.socket
) -> None:
    itself = desk.sockets.keep(socket.socket())
    itself.bind((str(CLIENT.addresses[0]), 0))
    itself.connect(listener.getsockname())
    call, _, begun = begin(desk, address_of(listener), port=itself.getsockname()[1])
    assert begun
    drive(engine)
    desk.sockets.keep(listener.accept()[0])
    server = desk.sockets.keep(listener.accept()[0])
    shown = server.getpeername()[1]
    assert shown != call.peer.port
    assert (Endpoint(CLIENT.addresses[0], shown), address_of(listener)) in desk.kernel.admitted
    assert (Endpoint(CLIENT.addresses[0], call.peer.port), address_of(listener)) not in desk.kernel.admitted
    call.abort(DRAINED)


def test_an_application_that_does_not_listen_fails_the_call(desk: Desk, engine: Engine) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.2", 0))
        _, client, _ = begin(desk, address_of(nobody))
        drive(engine)
    assert is_reset(client)
    assert "Connection refused" in desk.lines[0]
    assert desk.totals() == (1, 1)
    assert desk.kernel.admitted == set()
    assert desk.kernel.verdicts == {}


def test_a_verdict_that_is_void_before_it_stands_is_not_taught(
    desk: Desk, engine: Engine, listener: socket.socket
) -> None:
    instead = Instead()
    call, _, _ = begin(desk, address_of(listener), instead=instead)
    desk.kernel.bump(2)
    drive(engine)
    assert instead == [1]
    assert desk.kernel.verdicts == {}
    assert call.opener is not None
    call.fail(DRAINED)


def test_a_policy_ends_a_call_that_is_being_dialled(
    desk: Desk, engine: Engine, listener: socket.socket
) -> None:
    _, client, _ = begin(desk, address_of(listener))
    desk.publish(policy("no").deny().when(principals=["*"]))
    drive(engine)
    assert is_reset(client)
    assert "connection closed due to policy change" in desk.lines[0]
    assert len(desk.calls) == 0
    assert desk.kernel.admitted == set()


def test_a_policy_ends_a_call_that_is_carried(desk: Desk, engine: Engine, listener: socket.socket) -> None:
    _, client, server = stand(desk, listener)
    desk.publish(policy("no").deny().when(principals=["*"]))
    drive(engine)
    assert is_reset(client)
    assert is_reset(server)
    assert len(desk.lines) == 2
    assert all("policy change" in line for line in desk.lines)


def test_strict_ends_a_call_that_is_carried(desk: Desk, engine: Engine, listener: socket.socket) -> None:
    _, client, _ = stand(desk, listener)
    desk.publish(strict(), SERVER.selected_by(strict()))
    drive(engine)
    assert is_reset(client)


# --- changes -----------------------------------------------------------------------------
