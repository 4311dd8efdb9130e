"""A node that calls, and a server of ours: for tests of sessions that are found, and dialled."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import trio

from tests.builders import workload
from tests.flow.driving import Bugs
from tests.hbone.peers import CONNECT_BLOCK, OK_BLOCK
from tests.inbound.parts import Signer, Sockets, now
from tests.outbound.parts import Desk, Here, address_of, journey
from ztunnel.errors import ConnectionFailed, Drained
from ztunnel.flow.drive import drive
from ztunnel.flow.engine import Engine
from ztunnel.flow.flow import Counts
from ztunnel.hbone.answer import IncomingTunnel
from ztunnel.hbone.carry import Session
from ztunnel.hbone.ledger import Ledger
from ztunnel.hbone.link import link as make_link
from ztunnel.hbone.pool import PoolKey
from ztunnel.http2.limits import Limits
from ztunnel.identity.rotate import Certificates
from ztunnel.model.address import Endpoint
from ztunnel.model.identity import SpiffeId
from ztunnel.outbound.connect import TunnelCall
from ztunnel.outbound.dial import Dialler
from ztunnel.outbound.find import Patience, Tunnels
from ztunnel.redirect.enroll import PodNetwork

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
    server_ledger: Ledger
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
                link = await make_link(sock, certificate.server_context, server_side=True)
            except ConnectionFailed:
                continue
            self.sessions.append(
                Session(self.desk.engine, link, self.server_ledger, ended, self.asked.append)
            )

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
    signer: Signer,
    sockets: Sockets,
    patience: Patience | None = None,
    server_streams: int = 200,
    **limits: int,
) -> AsyncIterator[Mesh]:
    bugs = Bugs()
    engine = Engine(bugs)
    desk = Desk(engine, sockets)
    ledger = Ledger(Limits(goodbye_seconds=0.0, **limits))
    far = Ledger(Limits(goodbye_seconds=0.0, accept_streams=server_streams, **limits))
    async with trio.open_nursery() as nursery:
        certificates = Certificates(signer, now, Random(1))
        dialler = Dialler(engine, ledger, certificates, now, patience or Patience())
        tunnels = Tunnels(engine, ledger, certificates, patience or Patience(), dialler.ask)
        mesh = Mesh(desk, tunnels, certificates, ledger, sockets.listen(), nursery, far)
        certificates.want(SERVER.identity)
        certificates.want(CLIENT.identity)
        nursery.start_soon(drive, engine)
        nursery.start_soon(certificates.run)
        nursery.start_soon(dialler.run, contain, tunnels)
        nursery.start_soon(mesh.serve, mesh.listener)
        yield mesh
        desk.calls.abort(Drained("over"))
        tunnels.leave(lambda key: True)
        for session in mesh.sessions:
            session.abort(Drained("over"))
        await mesh.until(lambda: not ledger.sessions and not far.sessions)
        nursery.cancel_scope.cancel()
    engine.close()
    assert not bugs
