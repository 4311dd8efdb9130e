"""Each redirected connection: where to, which way, and what is reported where there is none."""

from __future__ import annotations

import errno
import socket
import time
from functools import partial

import pytest

from tests.builders import policy, service, workload
from tests.flow.driving import drive
from tests.inbound.parts import Sockets
from tests.outbound.parts import Desk, address_of, is_reset
from ztunnel.errors import ConnectionFailed, Drained, HboneTimedOut, Unreachable
from ztunnel.flow.engine import Engine
from ztunnel.flow.share import Shares
from ztunnel.http2.decoder import FieldReader
from ztunnel.model.address import parse_endpoint
from ztunnel.model.workload import SameNode
from ztunnel.outbound.connect import TunnelCall
from ztunnel.redirect.layout import Direct

CLIENT = workload("client").at("127.0.0.9").on("n1").hbone()
WEB = service("web").at("10.96.0.1").port(80, 8080)
FAR = workload("far").at("127.0.1.1").on("n2").hbone().serves(WEB)
NEAR = workload("near").at("127.0.0.2").on("n1").hbone()
OLD = workload("old").at("127.0.2.1").on("n2")


@pytest.fixture
def desk(engine: Engine, sockets: Sockets) -> Desk:
    made = Desk(engine, sockets, CLIENT, FAR, NEAR, OLD, WEB)
    made.pod(CLIENT, 1)
    made.pod(NEAR, 2)
    return made


def end(call: TunnelCall) -> None:
    call.abort(Drained("over"))


def fields(call: TunnelCall) -> dict[bytes, bytes]:
    return dict(FieldReader(65_536).read(call.block))


# --- nowhere -----------------------------------------------------------------------------


def test_a_connection_that_nobody_redirected_is_refused_early(desk: Desk) -> None:
    client = desk.call(CLIENT, 1, "")
    assert is_reset(client)
    assert "no original destination" in desk.lines[0]
    assert desk.totals() == (0, 0)
    assert len(desk.calls) == 0


def test_a_destination_that_the_kernel_does_not_give_out_is_as_none(desk: Desk) -> None:
    desk.kernel.broken = OSError(errno.ENOMEM, "no memory")
    assert is_reset(desk.call(CLIENT, 1, "10.96.0.1:80"))
    assert "no original destination" in desk.lines[0]


def test_a_pod_that_has_left_the_mesh_calls_nobody(desk: Desk) -> None:
    desk.publish(removed=[CLIENT.uid])
    assert is_reset(desk.call(CLIENT, 1, "10.96.0.1:80"))
    assert "it has left the mesh" in desk.lines[0]


def test_a_call_that_has_nowhere_to_go_is_refused_with_the_reason(desk: Desk) -> None:
    desk.publish(FAR.unhealthy())
    assert is_reset(desk.call(CLIENT, 1, "10.96.0.1:80"))
    assert "no healthy upstream" in desk.lines[0]
    assert 'dst.service="default/web' not in desk.lines[0]
    assert 'dst.service="web' in desk.lines[0]
    assert desk.totals() == (1, 1)
    assert len(desk.calls) == 0


class Exemption:
    """Where the proxy is: looked at as often as it asks for."""

    def __init__(self) -> None:
        self.trouble, self.look_at, self.found = "", 0.0, ""
        self.looks: list[float] = []

    def look(self, now: float) -> None:
        self.looks.append(now)
        self.look_at = now + 1000.0
        self.trouble = self.found


def test_a_proxy_that_may_capture_itself_takes_up_no_call(desk: Desk) -> None:
    exemption = Exemption()
    object.__setattr__(desk.outbound, "exemption", exemption)
    exemption.found = "the proxy is in the root cgroup"
    assert is_reset(desk.call(CLIENT, 1, "10.96.0.1:80"))
    assert is_reset(desk.call(CLIENT, 1, "10.96.0.1:80"))
    assert 'error="the proxy is in the root cgroup"' in desk.lines[1]
    assert "dst.addr=10.96.0.1:80" in desk.lines[0]
    assert len(exemption.looks) == 1  # the second came within the time for which one look serves
    assert desk.kernel.recalled == {}
    assert len(desk.calls) == 0
    exemption.trouble = ""
    desk.call(CLIENT, 1, "10.96.0.1:80")
    (call,) = desk.tunnels.calls
    end(call)


def test_a_bug_ends_the_call_that_met_it(desk: Desk) -> None:
    desk.tunnels.error = RuntimeError("bug")
    with pytest.raises(RuntimeError, match="bug"):
        desk.call(CLIENT, 1, "10.96.0.1:80")
    assert len(desk.calls) == 0
    assert 'error="internal error"' in desk.lines[0]
    assert desk.totals() == (1, 1)


# --- session affinity --------------------------------------------------------------------

KEEPING = WEB.keeping(60)
FARS = [
    workload(f"far-{number}").at(f"127.0.1.{number}").on("n2").hbone().serves(KEEPING)
    for number in range(1, 6)
]


def chosen(desk: Desk, cookie: int = 1, times: int = 8) -> set[str]:
    """The endpoints that so many calls of a client go to."""
    desk.pod(CLIENT, cookie)
    for _ in range(times):
        desk.call(CLIENT, cookie, "10.96.0.1:80")
    found = {fields(call)[b":authority"].decode() for call in desk.tunnels.calls}
    for call in desk.tunnels.calls:
        end(call)
    desk.tunnels.calls.clear()
    return found


def test_a_client_keeps_its_endpoint_and_another_one_has_its_own(desk: Desk) -> None:
    desk.publish(WEB, *FARS, removed=[FAR.uid])
    assert len(chosen(desk)) > 1, "without affinity"
    assert desk.kernel.affinities.known == {}
    desk.publish(KEEPING)
    clients = [chosen(desk, cookie) for cookie in range(10, 20)]
    assert all(len(each) == 1 for each in clients)
    assert len(set.union(*clients)) > 1
    assert [chosen(desk, cookie) for cookie in range(10, 20)] == clients


def test_what_the_kernel_has_picked_yields_to_what_is_kept(desk: Desk) -> None:
    desk.publish(KEEPING, *FARS, removed=[FAR.uid])
    kept = parse_endpoint("127.0.1.3:8080")
    desk.kernel.affinities.keep(1, parse_endpoint("10.96.0.1:80"), kept, time.monotonic_ns())
    assert chosen(desk) == {str(kept)}


def test_an_endpoint_that_is_none_any_more_or_whose_time_is_over_is_not_kept(desk: Desk) -> None:
    desk.publish(KEEPING, *FARS, removed=[FAR.uid])
    [first] = chosen(desk)
    gone = next(each for each in FARS if f"{each.addresses[0]}:8080" == first)
    desk.publish(gone.unhealthy())
    [second] = chosen(desk)
    assert second != first
    desk.publish(gone)
    assert chosen(desk) == {second}
    (key, (endpoint, used)) = next(iter(desk.kernel.affinities.known.items()))
    found = set()
    for _ in range(16):
        desk.kernel.affinities.known[key] = endpoint, used - 61_000_000_000
        found |= chosen(desk, times=1)
    assert len(found) > 1


# --- by tunnel ---------------------------------------------------------------------------


def test_a_pod_elsewhere_is_called_through_a_tunnel(desk: Desk) -> None:
    client = desk.call(CLIENT, 1, "10.96.0.1:80")
    (call,) = desk.tunnels.calls
    assert call.key.source == CLIENT.identity
    assert call.key.destinations == {FAR.identity}
    assert call.key.destination == parse_endpoint("127.0.1.1:15008")
    headers = fields(call)
    assert headers[b":authority"] == b"127.0.1.1:8080"
    assert headers[b"baggage"].startswith(b"k8s.cluster.name=Kubernetes,k8s.namespace.name=default")
    assert headers[b"forwarded"] == f'for="{address_of(client)}";host=web.default.svc.cluster.local'.encode()
    end(call)
    assert "dst.hbone_addr=127.0.1.1:8080" in desk.lines[0]
    assert f'src.identity="{CLIENT.identity}"' in desk.lines[0]


def test_what_a_pod_says_of_itself_follows_its_workload(desk: Desk) -> None:
    desk.call(CLIENT, 1, "10.96.0.1:80")
    desk.publish(CLIENT.account("other"))
    desk.call(CLIENT, 1, "10.96.0.1:80")
    one, two = desk.tunnels.calls
    assert (one.key.source.service_account, two.key.source.service_account) == ("client", "other")
    for call in (one, two):
        end(call)


def test_a_waiting_call_stays_with_its_endpoint_where_the_world_lets_it(desk: Desk) -> None:
    desk.publish(*(FAR.identified_by(f"u{n}").at(f"127.0.1.{n}") for n in range(2, 6)))
    desk.call(CLIENT, 1, "10.96.0.1:80")
    (call,) = desk.tunnels.calls
    first = call.call
    target = call.key.destination.ip
    # The world has changed in another place: it is decided again, and stays where it was.
    desk.publish(workload("another"))
    assert not call.still_wants()
    again = desk.tunnels.calls[-1]
    assert again.call is first
    assert again.key.destination.ip == target
    end(again)
    assert len(desk.lines) == 1
    assert desk.totals() == (1, 1)


def test_a_waiting_call_goes_where_the_world_says_by_now(desk: Desk, engine: Engine) -> None:
    listener = desk.sockets.listen("127.0.1.1")
    port = listener.getsockname()[1]
    client = desk.call(CLIENT, 1, f"127.0.1.1:{port}")
    (call,) = desk.tunnels.calls
    assert call.still_wants()
    desk.publish(FAR.plain())
    assert not call.still_wants()
    drive(engine)
    server = desk.sockets.keep(listener.accept()[0])
    client.sendall(b"plain")
    drive(engine)
    assert server.recv(10) == b"plain"
    for sock in (server, client):
        sock.close()
    drive(engine, until=lambda: not len(desk.calls))
    assert len(desk.lines) == 1
    assert "dst.hbone_addr" not in desk.lines[0]


def test_a_waiting_call_of_a_pod_that_left_fails(desk: Desk) -> None:
    client = desk.call(CLIENT, 1, "10.96.0.1:80")
    desk.publish(removed=[CLIENT.uid])
    assert not desk.tunnels.calls[0].still_wants()
    assert is_reset(client)
    assert "it has left the mesh" in desk.lines[0]


def test_a_waiting_call_that_has_nowhere_to_go_any_more_fails(desk: Desk) -> None:
    client = desk.call(CLIENT, 1, "10.96.0.1:80")
    desk.publish(FAR.unhealthy())
    assert not desk.tunnels.calls[0].still_wants()
    assert is_reset(client)
    assert "no healthy upstream" in desk.lines[0]
    assert desk.totals() == (1, 1)


# --- as it is ----------------------------------------------------------------------------


def test_a_stranger_is_called_in_plaintext(desk: Desk, engine: Engine) -> None:
    listener = desk.sockets.listen("127.0.3.1")
    client = desk.call(CLIENT, 1, address_of(listener))
    drive(engine)
    server = desk.sockets.keep(listener.accept()[0])
    assert len(desk.calls) == 1
    for sock in (server, client):
        sock.close()
    drive(engine, until=lambda: not len(desk.calls))
    assert f"dst.addr={address_of(listener)}" in desk.lines[0]


# --- directly ----------------------------------------------------------------------------


def test_a_pod_of_this_node_is_called_directly(desk: Desk, engine: Engine) -> None:
    listener = desk.sockets.listen("127.0.0.2")
    client = desk.call(CLIENT, 1, address_of(listener))
    drive(engine)
    server = desk.sockets.keep(listener.accept()[0])
    assert server.getpeername()[0] == "127.0.0.9"
    assert desk.kernel.verdicts == {(1, address_of(listener)): Direct(2, 2, 2)}
    for sock in (server, client):
        sock.close()
    drive(engine, until=lambda: not len(desk.calls))
    assert len(desk.lines) == 2


@pytest.mark.parametrize("without", [CLIENT, NEAR])
def test_without_a_certificate_at_either_end_nothing_goes_directly(desk: Desk, without: object) -> None:
    desk.tunnels.unproved = {without.identity}  # type: ignore[attr-defined]
    desk.call(CLIENT, 1, "127.0.0.2:8080")
    (call,) = desk.tunnels.calls
    assert call.key.destination == parse_endpoint("127.0.0.2:15008")
    assert desk.kernel.verdicts == {}
    end(call)
    assert desk.totals() == (1, 1)


def test_where_the_other_end_is_not_enrolled_here_a_tunnel_is_used(desk: Desk) -> None:
    del desk.direct.pods[NEAR.uid]
    desk.call(CLIENT, 1, "127.0.0.2:8080")
    end(desk.tunnels.calls[0])
    assert len(desk.lines) == 1


def test_a_refusal_between_pods_of_this_node_is_reported_at_both_ends(desk: Desk) -> None:
    desk.publish(policy("nobody").when(principals=["x"]))
    client = desk.call(CLIENT, 1, "127.0.0.2:8080")
    assert is_reset(client)
    assert len(desk.lines) == 2
    assert all("allow policies exist, but none allowed" in line for line in desk.lines)
    assert desk.totals() == (2, 2)
    assert len(desk.calls) == 0


def test_strict_means_a_tunnel(desk: Desk) -> None:
    desk.publish(NEAR.same_node_mode(SameNode.MTLS))
    desk.call(CLIENT, 1, "127.0.0.2:8080")
    end(desk.tunnels.calls[0])


def test_a_drain_ends_what_waits(desk: Desk) -> None:
    desk.call(CLIENT, 1, "10.96.0.1:80")
    desk.calls.abort(Drained("connection closed due to connection drain"))
    assert 'error="connection closed due to connection drain"' in desk.lines[0]
    assert len(desk.calls) == 0


# --- another endpoint --------------------------------------------------------------------

ALSO = workload("also").at("127.0.1.2").on("n2").hbone().serves(WEB)


def tried(call: TunnelCall) -> str:
    return fields(call)[b":authority"].decode()


@pytest.mark.parametrize(
    "error", [Unreachable("refused"), HboneTimedOut("nobody answers")], ids=["refused", "silent"]
)
def test_where_an_endpoint_cannot_be_reached_another_one_is_tried_once(
    desk: Desk, error: ConnectionFailed
) -> None:
    desk.publish(ALSO)
    client = desk.call(CLIENT, 1, "10.96.0.1:80")
    (first,) = desk.tunnels.calls
    first.call.fail(error)
    _, second = desk.tunnels.calls
    assert {tried(first), tried(second)} == {"127.0.1.1:8080", "127.0.1.2:8080"}
    assert second.call is first.call
    assert desk.tunnels.retried == 1
    second.call.fail(error)
    assert len(desk.tunnels.calls) == 2
    assert is_reset(client)
    assert len(desk.lines) == 1
    assert "retries=1" in desk.lines[0]
    assert desk.totals() == (2, 2)  # under the labels of either endpoint


@pytest.mark.parametrize("status", [503, 401, 400])
def test_a_far_end_that_cannot_reach_its_application_is_left_for_another_and_a_refusal_is_not(
    desk: Desk, status: int
) -> None:
    desk.publish(ALSO)
    client = desk.call(CLIENT, 1, "10.96.0.1:80")
    (first,) = desk.tunnels.calls
    first.refused(status, (), first.call.hand_over())
    if status == 503:
        assert len(desk.tunnels.calls) == 2
        end(desk.tunnels.calls[1])
    assert is_reset(client)
    assert len(desk.tunnels.calls) == 1 + (status == 503)


def test_the_only_endpoint_is_not_tried_twice(desk: Desk) -> None:
    client = desk.call(CLIENT, 1, "10.96.0.1:80")
    (only,) = desk.tunnels.calls
    only.call.fail(Unreachable("refused"))
    assert is_reset(client)
    assert len(desk.tunnels.calls) == 1


def test_a_pod_that_was_called_by_its_own_address_has_no_other(desk: Desk) -> None:
    desk.publish(ALSO)
    client = desk.call(CLIENT, 1, "127.0.1.1:8080")
    (only,) = desk.tunnels.calls
    only.call.fail(Unreachable("refused"))
    assert is_reset(client)
    assert len(desk.tunnels.calls) == 1


def test_a_call_that_is_ended_is_not_tried_elsewhere(desk: Desk) -> None:
    desk.publish(ALSO)
    client = desk.call(CLIENT, 1, "10.96.0.1:80")
    end(desk.tunnels.calls[0])
    assert is_reset(client)
    assert len(desk.tunnels.calls) == 1


def test_a_pod_that_has_left_meanwhile_tries_nobody_else(desk: Desk) -> None:
    desk.publish(ALSO)
    client = desk.call(CLIENT, 1, "10.96.0.1:80")
    desk.publish(removed=[CLIENT.uid])
    desk.tunnels.calls[0].call.fail(Unreachable("refused"))
    assert is_reset(client)


def test_a_plain_endpoint_that_refuses_is_left_for_another(
    desk: Desk, engine: Engine, sockets: Sockets
) -> None:
    listener = sockets.listen("127.0.2.9")
    port = address_of(listener).port
    shop = service("shop").at("10.96.0.9").port(80, port)
    dead, alive = (
        workload(name).at(ip).on("n2").serves(shop)
        for name, ip in (("dead", "127.0.2.8"), ("alive", "127.0.2.9"))
    )
    desk.publish(shop, dead, alive)
    for _ in range(8):
        client = desk.call(CLIENT, 1, "10.96.0.9:80")
        client.sendall(b"hello")
        drive(engine, until=partial(accepted, listener, sockets))
        drive(engine)
        with pytest.raises(BlockingIOError):  # it stands
            client.recv(1)
    desk.calls.abort(Drained("over"))
    drive(engine)
    assert desk.tunnels.retried > 0


def accepted(listener: socket.socket, sockets: Sockets) -> bool:
    try:
        sockets.keep(listener.accept()[0])
    except BlockingIOError:
        return False
    return True


def test_when_no_more_can_be_held_the_newest_of_the_greediest_gives_way(desk: Desk) -> None:
    desk.calls.room = Shares(3)
    desk.publish(ALSO)
    greedy = [desk.call(CLIENT, 1, "127.0.1.1:8080") for _ in range(3)]
    modest = desk.call(CLIENT, 1, "127.0.1.2:8080")
    assert is_reset(greedy[-1])
    assert is_reset(desk.call(CLIENT, 1, "127.0.1.1:8080"))
    assert len(desk.calls) == len(desk.calls.room) == 3
    for client in (*greedy[:2], modest):
        with pytest.raises(BlockingIOError):
            client.recv(1)
    assert sum("no room for more connections" in line for line in desk.lines) == 2
    desk.calls.abort(Drained("over"))
    assert len(desk.calls.room) == 0
