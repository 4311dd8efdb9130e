"""Direct calls: judged, dialled over the pods' own interfaces, taught to the kernel, voided by changes."""

from __future__ import annotations

import errno
import socket
import time
from ipaddress import IPv4Address

import pytest

from tests.builders import policy, service, workload
from tests.flow.driving import Clock, drive
from tests.inbound.parts import Sockets
from tests.outbound.direct import CLIENT, DRAINED, SERVER, VIP, WEB, Instead, begin, stand
from tests.outbound.parts import Desk, address_of, is_reset
from ztunnel.flow.engine import Engine
from ztunnel.model.address import Endpoint, PeerAddress, parse_endpoint
from ztunnel.model.workload import SameNode
from ztunnel.redirect.layout import Deny, Direct


@pytest.fixture
def desk(engine: Engine, sockets: Sockets) -> Desk:
    made = Desk(engine, sockets, CLIENT, SERVER, WEB)
    made.pod(CLIENT, 1)
    made.pod(SERVER, 2)
    return made


@pytest.fixture
def listener(sockets: Sockets) -> socket.socket:
    return sockets.listen("127.0.0.2")


def test_what_a_predecessor_has_taught_is_void_at_the_start(desk: Desk) -> None:
    assert desk.kernel.dropped_all == 1
    assert desk.kernel.generations == {1: 2, 2: 2}


def test_a_call_that_stands_is_carried_taught_and_accounted_at_both_ends(
    desk: Desk, engine: Engine, listener: socket.socket
) -> None:
    call, client, server = stand(desk, listener)
    assert desk.kernel.verdicts == {(1, address_of(listener)): Direct(2, 2, 2)}
    assert desk.kernel.vips == {VIP: ((Endpoint(SERVER.addresses[0], 8080), 1),)}
    assert desk.kernel.admitted == {
        (Endpoint(CLIENT.addresses[0], server.getpeername()[1]), address_of(listener))
    }
    client.sendall(b"question")
    drive(engine)
    assert server.recv(100) == b"question"
    server.sendall(b"answer")
    for sock in (server, client):
        sock.shutdown(socket.SHUT_WR)
    drive(engine, until=lambda: not len(desk.calls))
    assert desk.bytes_of("source") == desk.bytes_of("destination") == (8, 6)
    assert desk.totals() == (2, 2)
    assert desk.live.of(CLIENT.uid) == desk.live.of(SERVER.uid) == frozenset()
    assert {row.labels.connection_security_policy for row in desk.metrics.rows(0.0)} == {"unknown"}
    assert call.opener is None


ELSEWHERE = PeerAddress(IPv4Address("127.0.0.77"), 4000)


def test_a_source_address_that_the_application_chose_is_kept_and_not_taught_about(
    desk: Desk, engine: Engine, listener: socket.socket
) -> None:
    """The kernel's verdicts are about the pod's own address: policy may look at it."""
    call, _, begun = begin(desk, address_of(listener), peer=ELSEWHERE)
    assert begun
    drive(engine)
    server = desk.sockets.keep(listener.accept()[0])
    assert server.getpeername()[0] == "127.0.0.77"
    assert desk.kernel.verdicts == {}
    assert desk.kernel.vips == {}
    assert {str(source.ip) for source, _ in desk.kernel.admitted} == {"127.0.0.77"}
    call.abort(DRAINED)


def test_a_source_address_that_the_application_chose_is_what_policy_sees(
    desk: Desk, listener: socket.socket
) -> None:
    desk.publish(policy("no").deny().when(source_ips=["127.0.0.77"]))
    begin(desk, address_of(listener), peer=ELSEWHERE)
    assert len(desk.calls) == 0
    assert desk.kernel.verdicts == {}, "a refusal of that address is none of the pod's own"
    call, _, _ = stand(desk, listener)
    assert len(desk.kernel.verdicts) == 1
    call.abort(DRAINED)


@pytest.mark.parametrize("missing", [CLIENT.uid, SERVER.uid])
def test_an_end_that_is_not_enrolled_here_makes_it_impossible(desk: Desk, missing: str) -> None:
    del desk.direct.pods[missing]
    call, client, begun = begin(desk, parse_endpoint("127.0.0.2:8080"))
    assert not begun
    assert call.opener is not None
    call.fail(DRAINED)
    assert is_reset(client)


def test_a_refusal_is_taught_with_the_number_of_its_policy(desk: Desk) -> None:
    desk.publish(policy("no").deny().when(principals=["*"]))
    endpoint = parse_endpoint("127.0.0.2:8080")
    _, client, begun = begin(desk, endpoint)
    assert begun
    assert is_reset(client)
    generation = desk.kernel.generation(1)
    assert desk.kernel.verdicts == {(1, endpoint): Deny(1, generation, 2, desk.kernel.generation(2))}
    assert desk.direct.policy(1) == "default/no"
    assert desk.direct.policy(0) == "none allowed"
    assert desk.direct.policy(7) is None
    assert len(desk.lines) == 2
    begin(desk, endpoint)
    assert desk.direct.policy(2) is None


def test_a_kernel_without_room_is_no_obstacle(desk: Desk, engine: Engine, listener: socket.socket) -> None:
    desk.kernel.full = True
    call, _, _ = stand(desk, listener)
    assert desk.direct.untaught == 1
    call.abort(DRAINED)
    assert len(desk.lines) == 2


def listen_in_vain(sockets: Sockets) -> socket.socket:
    """A listener whose backlog is full: no SYN is answered."""
    full = sockets.listen("127.0.0.2", backlog=0)
    for _ in range(3):
        caller = sockets.keep(socket.socket())
        caller.setblocking(False)
        caller.connect_ex(full.getsockname())
    return full


def test_an_unanswered_call_goes_another_way_for_a_minute(
    desk: Desk, engine: Engine, clock: Clock, sockets: Sockets
) -> None:
    full = listen_in_vain(sockets)
    instead = Instead()
    call, client, begun = begin(desk, address_of(full), instead=instead)
    assert begun
    drive(engine)
    assert instead == []
    clock.move(1.1)
    drive(engine)
    assert instead == [1]
    assert call.opener is not None
    assert desk.kernel.admitted == set()
    assert desk.kernel.verdicts == {}
    assert desk.totals() == (0, 0)
    call.fail(DRAINED)
    assert is_reset(client)
    again, _, begun = begin(desk, address_of(full))
    assert not begun
    again.fail(DRAINED)
    clock.move(61)
    engine.round()
    later, _, begun = begin(desk, address_of(full))
    assert begun
    later.abort(DRAINED)


def test_an_application_that_takes_up_no_more_for_now_is_called_directly_the_next_time(
    desk: Desk, engine: Engine, clock: Clock, sockets: Sockets
) -> None:
    """Its backlog is full: the SYN has arrived, and waits for no less on another way."""
    full = listen_in_vain(sockets)
    desk.kernel.reached.add(address_of(full))
    instead = Instead()
    call, client, _ = begin(desk, address_of(full), instead=instead)
    clock.move(1.1)
    drive(engine)
    assert instead == [1]
    assert desk.kernel.admitted == set()
    call.fail(DRAINED)
    assert is_reset(client)
    again, _, begun = begin(desk, address_of(full))
    assert begun
    again.abort(DRAINED)


def test_detours_are_remembered_up_to_a_limit(desk: Desk) -> None:
    for port in range(1, 5000):
        desk.direct.detour(1, Endpoint(SERVER.addresses[0], port))
    assert len(desk.direct._detours) == 4096


def test_a_change_voids_what_it_can_touch_and_nothing_else(desk: Desk) -> None:
    desk.publish(SERVER.same_node_mode(SameNode.MTLS))
    assert desk.kernel.generations == {1: 2, 2: 3}
    desk.publish(workload("stranger"))
    desk.publish(SERVER.same_node_mode(SameNode.MTLS).unhealthy())
    assert desk.kernel.generations == {1: 2, 2: 3}
    desk.publish(policy("p", "istio-system").everywhere().when(principals=["*"]))
    assert desk.kernel.generations == {1: 3, 2: 4}
    desk.publish(removed=[SERVER.uid])
    assert desk.kernel.generations == {1: 3, 2: 5}


def test_the_slots_of_a_service_go_when_its_endpoints_change(desk: Desk, listener: socket.socket) -> None:
    stand(desk, listener)[0].abort(DRAINED)
    assert VIP in desk.kernel.vips
    desk.publish(service("other").at("10.96.0.2").port(80))
    assert VIP in desk.kernel.vips
    desk.publish(SERVER.unhealthy())
    assert desk.kernel.vips == {}
    desk.publish(SERVER)
    stand(desk, listener)[0].abort(DRAINED)
    assert VIP in desk.kernel.vips


def test_a_vip_of_two_services_has_no_slots(desk: Desk, listener: socket.socket) -> None:
    stand(desk, listener)[0].abort(DRAINED)
    desk.publish(service("web", "elsewhere").at("10.96.0.1").port(80))
    assert desk.kernel.vips == {}
    stand(desk, listener)[0].abort(DRAINED)
    assert desk.kernel.vips == {}


def test_a_service_of_one_namespace_alone_is_not_taught_to_the_kernel(
    engine: Engine, sockets: Sockets, listener: socket.socket
) -> None:
    """What the kernel knows of a virtual address counts for all pods."""
    desk = Desk(engine, sockets, CLIENT, SERVER, WEB.hidden())
    desk.pod(CLIENT, 1)
    desk.pod(SERVER, 2)
    call, _, begun = begin(desk, address_of(listener))
    assert begun
    drive(engine)
    assert desk.kernel.verdicts
    assert desk.kernel.vips == {}
    call.abort(DRAINED)


def test_a_service_that_went_while_it_was_dialled_is_not_taught(
    desk: Desk, engine: Engine, listener: socket.socket
) -> None:
    call, _, _ = begin(desk, address_of(listener))
    desk.publish(SERVER, removed=[f"{WEB.namespace}/{WEB.hostname}"])
    drive(engine)
    assert desk.kernel.vips == {}
    call.abort(DRAINED)


def test_pods_without_a_certificate_lose_what_was_taught(desk: Desk) -> None:
    desk.direct.pods["unknown"] = desk.direct.pods[CLIENT.uid]
    desk.direct.void_unproved({CLIENT.identity: "a certificate"}.get)
    assert desk.kernel.generations == {1: 2, 2: 3}


def test_flows_from_before_a_change_may_rest_on_a_void_verdict(desk: Desk) -> None:
    desk.publish(workload("anybody"))
    now_ns = time.monotonic_ns()
    assert desk.direct.may_be_void(now_ns - 1_000_000)
    assert not desk.direct.may_be_void(now_ns + 1_000_000_000)


def test_what_the_kernel_refuses_to_void_keeps_the_change_from_being_acknowledged(desk: Desk) -> None:
    class Broken(type(desk.kernel)):  # type: ignore[misc]
        def bump(self, cookie: int) -> int:
            raise OSError(errno.ENOMEM, "no memory")

    desk.kernel.__class__ = Broken
    with pytest.raises(OSError, match="no memory"):
        desk.publish(SERVER.account("other"))
