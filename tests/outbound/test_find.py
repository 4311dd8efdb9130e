"""Sessions for calls: pooled, waited for in lines, left when they are not to be used any more."""

from __future__ import annotations

import pytest
import trio

from tests.builders import identity, world_of
from tests.flow.driving import read
from tests.hbone.peers import CONNECT_BLOCK
from tests.inbound.parts import Signer, Sockets
from tests.outbound.dialling import CLIENT, NETWORK, SERVER, Mesh, running
from tests.outbound.parts import address_of, is_reset, journey
from ztunnel.errors import Drained
from ztunnel.http2.frame import Code, Setting, push_goaway, push_settings
from ztunnel.outbound.connect import TunnelCall
from ztunnel.outbound.find import Patience
from ztunnel.state.delta import apply


async def test_a_call_waits_for_a_session_and_the_next_one_does_not(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets) as mesh:
        _, client = mesh.call()
        await mesh.until(lambda: mesh.asked)
        own = mesh.accept(0)
        client.sendall(b"hello")
        await mesh.until(lambda: read(own) == b"hello")
        mesh.call()
        await mesh.until(lambda: len(mesh.asked) == 2)
        assert len(mesh.sessions) == 1
        assert mesh.tunnels.proves(CLIENT.identity, SERVER.identity)
        assert not mesh.tunnels.proves(CLIENT.identity, identity("default/nobody"))


async def test_a_long_line_gets_as_many_sessions_as_it_needs(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets, open_streams=2) as mesh:
        for _ in range(5):
            mesh.call()
        await mesh.until(lambda: len(mesh.asked) == 5)
        assert len(mesh.sessions) == 3


async def test_a_call_that_ended_in_the_line_is_passed_over(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets) as mesh:
        gone, client = mesh.call()
        mesh.call()
        gone.abort(Drained("too late"))
        assert is_reset(client)
        await mesh.until(lambda: mesh.asked)
        assert len(mesh.desk.calls) == 1


async def test_a_call_that_goes_another_way_by_now_is_not_started(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets) as mesh:
        mesh.stands = False
        call, _ = mesh.call()
        await mesh.until(lambda: mesh.sessions and not mesh.tunnels._lines)
        assert mesh.asked == []
        assert call.call.opener is not None


async def test_where_no_more_can_be_held_calls_fail_and_nobody_is_dialled(
    signer: Signer, sockets: Sockets
) -> None:
    async with running(signer, sockets, buffered_bytes=0) as mesh:
        clients = [mesh.call()[1] for _ in range(3)]
        assert all(is_reset(client) for client in clients)
        assert mesh.lines().count("no more can be held") == 3
        assert len(mesh.sessions) == 0


async def test_a_session_that_takes_nobody_fails_the_line_in_time(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets, Patience(session_seconds=1.0), open_streams=0) as mesh:
        for identity in (CLIENT.identity, SERVER.identity):  # to make keys is not what has this time
            await mesh.certificates.fetch(identity)
        clients = [mesh.call()[1] for _ in range(3)]
        await mesh.until(lambda: not len(mesh.desk.calls))
        assert all(is_reset(client) for client in clients)
        assert mesh.lines().count("takes no tunnels") == 3
        assert len(mesh.sessions) <= 3


async def test_calls_that_lose_their_dial_use_an_older_session_that_has_room(
    signer: Signer, sockets: Sockets
) -> None:
    async with running(signer, sockets, open_streams=1) as mesh:
        first, _ = mesh.call()
        await mesh.until(lambda: mesh.asked)
        second, _ = mesh.call()
        first.abort(Drained("makes room"))
        mesh.tunnels._fail_line(second.key, Drained("no other session"))
        await mesh.until(lambda: len(mesh.asked) == 2)
        assert second.call.opener is None
        assert "no other session" not in mesh.lines()


async def test_a_line_has_an_end(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets, Patience(line_calls=2)) as mesh:
        _, *_, last = [mesh.call()[1] for _ in range(3)]
        assert is_reset(last)
        assert "too many connections wait for a session" in mesh.lines()


async def test_too_many_dials_fail_only_a_line_that_nobody_serves(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets, Patience(dials=2), open_streams=1) as mesh:
        elsewhere = [mesh.key(endpoint=address_of(sockets.listen())) for _ in range(2)]
        served, _ = mesh.call(elsewhere[0])
        waiting, _ = mesh.call(elsewhere[0])
        also, _ = mesh.call(elsewhere[0])
        _, refused = mesh.call(elsewhere[1])
        assert is_reset(refused)
        assert mesh.lines().count("too many sessions are being dialled") == 1
        assert all(call.call.opener is not None for call in (served, waiting, also))


# --- sessions that are left --------------------------------------------------------------


async def test_a_new_certificate_leaves_the_sessions_of_the_old_one(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets) as mesh:
        mesh.call()
        await mesh.until(lambda: mesh.asked)
        mesh.tunnels._renewed(SERVER.identity)
        assert len(mesh.tunnels._pool) == 1
        mesh.tunnels._renewed(CLIENT.identity)
        assert len(mesh.tunnels._pool) == 0
        mesh.accept(0)
        mesh.call()
        await mesh.until(lambda: len(mesh.asked) == 2)
        assert len(mesh.sessions) == 2


class Broken:
    """A session with a bug."""

    idle_since = None
    closed = False

    def can_take(self) -> bool:
        return True

    def open(self, *_: object) -> None:
        raise RuntimeError("bug")

    def retire(self) -> None:
        """Nothing to do."""


async def test_a_bug_in_a_session_ends_the_call_that_met_it(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets) as mesh:
        mesh.tunnels._pool.dialling(mesh.key())
        mesh.tunnels._pool.dialled(mesh.key(), Broken())  # type: ignore[arg-type]
        call, client = mesh.desk.plain_call()
        call.open(journey())
        with pytest.raises(RuntimeError, match="bug"):
            mesh.tunnels.open(
                TunnelCall(mesh.tunnels, call, (mesh.key(), NETWORK, CONNECT_BLOCK), lambda: True)
            )
        assert is_reset(client)
        assert len(mesh.desk.calls) == 0


async def test_a_session_for_which_nobody_waits_any_more_is_kept(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets, open_streams=1) as mesh:
        calls = [mesh.call()[0] for _ in range(2)]
        await mesh.until(lambda: mesh.asked)
        for call in calls:
            call.abort(Drained("over"))
        await mesh.until(lambda: len(mesh.sessions) == 2 and not mesh.tunnels._pool._dialling)
        assert len(mesh.tunnels._pool) == 2


async def test_addresses_of_other_workloads_are_left(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets) as mesh:
        mesh.call()
        await mesh.until(lambda: mesh.asked)
        world = world_of(SERVER, CLIENT)
        for upsert, left in ((CLIENT.hbone(), 1), (SERVER.unhealthy(), 1), (SERVER.account("other"), 0)):
            after, change = apply(world, [upsert])
            mesh.tunnels.changed(world, after, change)
            assert len(mesh.tunnels._pool) == left


async def test_idle_sessions_are_closed(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets) as mesh:
        call, _ = mesh.call()
        await mesh.until(lambda: mesh.asked)
        mesh.tunnels.retire_idle(0.0)
        assert len(mesh.tunnels._pool) == 1
        call.abort(Drained("done"))
        mesh.tunnels.retire_idle(0.0)
        assert len(mesh.tunnels._pool) == 0


async def test_a_session_that_ends_leaves_the_pool(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets) as mesh:
        _, client = mesh.call()
        await mesh.until(lambda: mesh.asked)
        own = mesh.accept(0)
        client.sendall(b"hello")
        await mesh.until(lambda: read(own) == b"hello")
        mesh.sessions[0].abort(Drained("restart"))
        await mesh.until(lambda: not len(mesh.tunnels._pool))
        await mesh.until(lambda: not len(mesh.desk.calls))


async def test_who_still_waits_at_the_end_is_told(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets) as mesh:
        mute = sockets.listen()
        _, client = mesh.call(mesh.key(endpoint=address_of(mute)))
        await mesh.until(lambda: mesh.tunnels._pool._dialling)
        mesh.tunnels.end(Drained("connection closed due to connection drain"))
        assert is_reset(client)
        assert "connection closed due to connection drain" in mesh.lines()


# --- peers that are busy -----------------------------------------------------------------


def refuse(mesh: Mesh, number: int) -> None:
    """Reset a request unseen, as a peer does that is full."""
    mesh.asked[number]._session.h2.reset(mesh.asked[number], Code.REFUSED_STREAM)


async def test_a_call_that_a_busy_peer_refuses_is_asked_again_until_it_is_taken(
    signer: Signer, sockets: Sockets
) -> None:
    async with running(signer, sockets) as mesh:
        call, client = mesh.call()
        client.sendall(b"hello")
        for number in range(5):
            await mesh.until(lambda number=number: len(mesh.asked) == number + 1)  # type: ignore[misc]
            refuse(mesh, number)
        await mesh.until(lambda: len(mesh.asked) == 6)
        own = mesh.accept(5)
        await mesh.until(lambda: read(own) == b"hello")
        assert call.call.retries == 5
        assert mesh.ledger.retried == 5
        call.abort(Drained("done"))
        assert "retries=5" in mesh.lines()


async def test_a_peer_that_stays_busy_is_asked_for_so_long_and_no_longer(
    signer: Signer, sockets: Sockets
) -> None:
    async with running(signer, sockets, Patience(session_seconds=0.3)) as mesh:
        _, client = mesh.call()
        refused = 0
        while len(mesh.desk.calls):
            await trio.sleep(0.001)
            while refused < len(mesh.asked):
                refuse(mesh, refused)
                refused += 1
        assert 3 < refused < 30
        assert is_reset(client)
        assert "refused the tunnel before looking at it" in mesh.lines()


async def test_a_call_that_ends_while_a_peer_is_busy_is_not_asked_for_again(
    signer: Signer, sockets: Sockets
) -> None:
    async with running(signer, sockets) as mesh:
        call, client = mesh.call()
        call.call.retries = 9  # so that the pause is a long one
        await mesh.until(lambda: mesh.asked)
        refuse(mesh, 0)
        await mesh.until(lambda: mesh.ledger.retried)
        call.abort(Drained("over"))
        assert is_reset(client)
        await trio.sleep(0.4)
        assert len(mesh.asked) == 1


async def test_a_session_whose_peer_takes_none_any_more_is_waited_for(
    signer: Signer, sockets: Sockets
) -> None:
    async with running(signer, sockets) as mesh:
        mesh.call()
        await mesh.until(lambda: mesh.asked and mesh.sessions)
        mesh.sessions[0].push(push_settings({Setting.MAX_CONCURRENT_STREAMS: 0}))
        [(_, ours)] = list(mesh.tunnels._pool)
        await mesh.until(lambda: ours.closed)
        mesh.call()
        mesh.call()
        await trio.sleep(0.05)
        assert len(mesh.sessions) == 1
        mesh.sessions[0].push(push_settings({Setting.MAX_CONCURRENT_STREAMS: 2}))
        await mesh.until(lambda: len(mesh.asked) == 3)


async def test_a_peer_that_takes_none_for_a_moment_costs_a_wait(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets, server_streams=0) as mesh:
        _, client = mesh.call()
        client.sendall(b"hello")
        await mesh.until(lambda: mesh.ledger.retried or mesh.tunnels._lines)
        await mesh.until(lambda: mesh.sessions)
        assert mesh.asked == []
        mesh.sessions[0].h2._limits = mesh.ledger.limits
        mesh.sessions[0].push(push_settings({Setting.MAX_CONCURRENT_STREAMS: 1}))
        await mesh.until(lambda: mesh.asked)
        own = mesh.accept(0)
        await mesh.until(lambda: read(own) == b"hello")
        assert len(mesh.sessions) == 1


async def test_calls_that_a_goaway_leaves_behind_go_to_another_session(
    signer: Signer, sockets: Sockets
) -> None:
    async with running(signer, sockets) as mesh:
        mesh.call()
        await mesh.until(lambda: mesh.asked)
        mesh.call()
        await mesh.until(lambda: len(mesh.asked) == 2)
        mesh.sessions[0].push(push_goaway(1, Code.NO_ERROR))
        await mesh.until(lambda: len(mesh.asked) == 3)
        assert len(mesh.sessions) == 2
        assert mesh.ledger.retried == 1


async def test_a_session_that_dies_while_calls_wait_for_room_fails_them_with_a_reason(
    signer: Signer, sockets: Sockets
) -> None:
    async with running(signer, sockets, server_streams=0) as mesh:
        _, client = mesh.call()
        await mesh.until(lambda: mesh.sessions and mesh.tunnels._lines and len(mesh.tunnels._pool))
        mesh.sessions[0].abort(Drained("gone"))
        await mesh.until(lambda: not len(mesh.desk.calls))
        assert is_reset(client)
        assert "takes no tunnels" in mesh.lines()
