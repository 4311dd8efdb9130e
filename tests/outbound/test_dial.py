"""Sessions for calls: pooled, dialled for the line that waits, replaced with their certificates."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import pytest
import trio

from tests.builders import identity, workload, world_of
from tests.flow.driving import Bugs, read
from tests.hbone.peers import CONNECT_BLOCK, OK_BLOCK
from tests.inbound.parts import Signer, Sockets, now
from tests.outbound.parts import Desk, Here, address_of, is_reset, journey
from ztunnel.errors import ConnectionFailed, Drained, NoCertificate
from ztunnel.flow.drive import drive
from ztunnel.flow.engine import Engine
from ztunnel.flow.flow import Counts
from ztunnel.hbone.answer import IncomingTunnel
from ztunnel.hbone.carry import Session
from ztunnel.hbone.limits import Ledger, Limits
from ztunnel.hbone.listen import welcome
from ztunnel.hbone.pool import PoolKey
from ztunnel.identity.rotate import Certificates
from ztunnel.model.address import Endpoint
from ztunnel.model.identity import SpiffeId
from ztunnel.outbound.connect import TunnelCall
from ztunnel.outbound.dial import Patience, Tunnels
from ztunnel.redirect.attach import PodNetwork
from ztunnel.state.delta import apply

CLIENT = workload("client").at("127.0.0.9")
SERVER = workload("server").at("127.0.0.1")
NETWORK = PodNetwork(1, Here(), None, None, CLIENT.addresses)
GONE = PodNetwork(2, Here(), None, None, CLIENT.addresses)
GONE.netns.gone = True  # type: ignore[attr-defined]


@dataclass
class Mesh:
    """A node that calls, and a server of ours that it may call."""

    desk: Desk
    tunnels: Tunnels
    certificates: Certificates
    ledger: Ledger
    listener: socket.socket
    nursery: trio.Nursery
    asked: list[IncomingTunnel] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    stands: bool = True

    def key(self, *expected: SpiffeId, endpoint: Endpoint | None = None) -> PoolKey:
        identities = frozenset(expected or {SERVER.identity})
        return PoolKey(
            CLIENT.identity, identities, CLIENT.addresses[0], endpoint or address_of(self.listener)
        )

    def call(
        self, key: PoolKey | None = None, network: PodNetwork = NETWORK
    ) -> tuple[TunnelCall, socket.socket]:
        call, client = self.desk.plain_call()
        call.open(journey())
        made = TunnelCall(
            self.tunnels, call, (key or self.key(), network, CONNECT_BLOCK), lambda: self.stands
        )
        self.tunnels.open(made)
        return made, client

    async def serve(self, listener: socket.socket) -> None:
        """Accept sessions, until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(listener)
            sock = self.desk.sockets.keep(listener.accept()[0])
            sock.setblocking(False)
            certificate = await self.certificates.fetch(SERVER.identity)
            try:
                link = await welcome(sock, certificate.server_context)
            except ConnectionFailed:
                continue
            self.sessions.append(Session(self.desk.engine, link, self.ledger, ended, self.asked.append))

    def accept(self, number: int) -> socket.socket:
        """Answer a request; the application's own end."""
        own, app = self.desk.sockets.call(self.desk.sockets.listen())
        self.asked[number].accept(OK_BLOCK, app, Counts(), lambda error: None)
        return own

    async def until(self, holds: Callable[[], object]) -> None:
        with trio.fail_after(4):
            while not holds():
                await trio.lowlevel.checkpoint()

    def lines(self) -> str:
        return "\n".join(self.desk.lines)


def ended(session: Session, error: ConnectionFailed | None) -> None:
    """Of no interest."""


async def contain(part: Callable[[], Awaitable[None]]) -> None:
    await part()


@asynccontextmanager
async def running(
    signer: Signer, sockets: Sockets, patience: Patience | None = None, **limits: int
) -> AsyncIterator[Mesh]:
    bugs = Bugs()
    engine = Engine(bugs)
    desk = Desk(engine, sockets)
    ledger = Ledger(Limits(goodbye_seconds=0.0, **limits))
    async with trio.open_nursery() as nursery:
        certificates = Certificates(signer, now, Random(1))
        tunnels = Tunnels(engine, ledger, certificates, now, patience or Patience())
        mesh = Mesh(desk, tunnels, certificates, ledger, sockets.listen(), nursery)
        certificates.want(SERVER.identity)
        certificates.want(CLIENT.identity)
        nursery.start_soon(drive, engine)
        nursery.start_soon(certificates.run)
        nursery.start_soon(tunnels.run, contain)
        nursery.start_soon(mesh.serve, mesh.listener)
        yield mesh
        desk.calls.abort(Drained("over"))
        tunnels.leave(lambda key: True)
        for session in mesh.sessions:
            session.abort(Drained("over"))
        await mesh.until(lambda: not ledger.sessions)
        nursery.cancel_scope.cancel()
    engine.close()
    assert not bugs


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


async def test_somebody_else_at_the_other_end_is_refused(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets) as mesh:
        _, client = mesh.call(mesh.key(identity("default/other")))
        await mesh.until(lambda: not len(mesh.desk.calls))
        assert is_reset(client)
        assert "peer did not present the expected SAN" in mesh.lines()
        assert len(mesh.tunnels._pool) == 0


async def test_a_port_where_nobody_listens_is_tried_again_for_a_while(
    signer: Signer, sockets: Sockets
) -> None:
    async with running(signer, sockets, Patience(refused_seconds=0.1)) as mesh:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            began = trio.current_time()
            _, client = mesh.call(mesh.key(endpoint=address_of(nobody)))
            await mesh.until(lambda: not len(mesh.desk.calls))
            assert trio.current_time() - began >= 0.1
        assert is_reset(client)
        assert "Connection refused" in mesh.lines()


async def test_a_port_that_begins_to_listen_meanwhile_is_reached(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets) as mesh:
        late = sockets.keep(socket.socket())
        late.bind(("127.0.0.1", 0))
        mesh.call(mesh.key(endpoint=address_of(late)))
        await trio.lowlevel.checkpoint()
        late.listen()
        late.setblocking(False)
        mesh.nursery.start_soon(mesh.serve, late)
        await mesh.until(lambda: mesh.asked)


async def test_a_pod_that_is_gone_dials_nobody(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets, Patience(session_seconds=0.2)) as mesh:
        _, client = mesh.call(network=GONE)
        await mesh.until(lambda: not len(mesh.desk.calls))
        assert is_reset(client)


async def test_a_peer_that_says_nothing_is_given_up_in_time(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets, Patience(session_seconds=0.2)) as mesh:
        mute = sockets.listen()
        _, client = mesh.call(mesh.key(endpoint=address_of(mute)))
        await mesh.until(lambda: not len(mesh.desk.calls))
        assert is_reset(client)
        assert "maybe a NetworkPolicy is blocking HBONE port" in mesh.lines()


class Slow:
    """A certificate source that never answers for one identity."""

    def __init__(self, signer: Signer) -> None:
        self.signer = signer

    async def create(self, csr_pem: str, identity: SpiffeId, ttl_seconds: float) -> object:
        if identity == CLIENT.identity:
            await trio.sleep_forever()
        return await self.signer.create(csr_pem, identity, ttl_seconds)


async def test_a_certificate_that_does_not_come_is_named_as_the_reason(
    signer: Signer, sockets: Sockets
) -> None:
    async with running(Slow(signer), sockets, Patience(session_seconds=0.2)) as mesh:  # type: ignore[arg-type]
        _, client = mesh.call()
        await mesh.until(lambda: not len(mesh.desk.calls))
        assert is_reset(client)
        assert f"no certificate for {CLIENT.identity} in time" in mesh.lines()
        flags = {row.labels.response_flags for row in mesh.desk.metrics.rows(0.0) if row.failed}
        assert flags == {NoCertificate.flag.value}


async def test_where_no_more_can_be_held_calls_fail_and_nobody_is_dialled(
    signer: Signer, sockets: Sockets
) -> None:
    async with running(signer, sockets, buffered_bytes=0) as mesh:
        clients = [mesh.call()[1] for _ in range(3)]
        assert all(is_reset(client) for client in clients)
        assert mesh.lines().count("no more can be held") == 3
        assert len(mesh.sessions) == 0


async def test_a_session_that_takes_nobody_fails_the_line(signer: Signer, sockets: Sockets) -> None:
    async with running(signer, sockets, open_streams=0) as mesh:
        clients = [mesh.call()[1] for _ in range(3)]
        await mesh.until(lambda: not len(mesh.desk.calls))
        assert all(is_reset(client) for client in clients)
        assert mesh.lines().count("takes no tunnels") == 3
        assert len(mesh.sessions) <= 1


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


async def test_a_session_of_a_certificate_that_was_replaced_meanwhile_is_not_pooled(
    signer: Signer, sockets: Sockets
) -> None:
    async with running(signer, sockets) as mesh:
        await mesh.certificates.fetch(CLIENT.identity)
        slow = sockets.listen()
        mesh.call(mesh.key(endpoint=address_of(slow)))
        await trio.lowlevel.wait_readable(slow)
        mesh.certificates.forget(CLIENT.identity)
        mesh.certificates.want(CLIENT.identity)
        await mesh.certificates.fetch(CLIENT.identity)
        mesh.nursery.start_soon(mesh.serve, slow)
        await mesh.until(lambda: mesh.asked)
        assert len(mesh.sessions) == 2
        assert len(mesh.tunnels._pool) == 1


class Broken:
    """A session with a bug."""

    idle_since = None

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
        with trio.CancelScope() as scope:
            scope.cancel()
            await mesh.tunnels.run(contain)
        assert is_reset(client)
        assert "connection closed due to connection drain" in mesh.lines()
