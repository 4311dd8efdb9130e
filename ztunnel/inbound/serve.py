"""Serves HBONE in pods: the TLS handshake in Trio, who the peer is, then a session that the engine carries."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from ipaddress import ip_address

import trio

from ztunnel.errors import ConnectionFailed, TlsFailed
from ztunnel.hbone.carry import Session
from ztunnel.hbone.limits import Ledger
from ztunnel.hbone.listen import welcome
from ztunnel.identity.rotate import Certificates
from ztunnel.identity.secure import peer as prove
from ztunnel.inbound.accept import Inbound
from ztunnel.inbound.answer import TunnelAcceptor
from ztunnel.model.address import Endpoint, PeerAddress, canonical
from ztunnel.model.connection import Direction
from ztunnel.redirect.attach import PodNetwork

Contain = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
"""Runs one connection's part; a bug in it ends that part, is logged and counted, and nothing else (`run.py`)."""

_HANDSHAKE_SECONDS = 10.0
_WAITING = 1024
_AT_ONCE = 512
"""Handshakes under way. A peer that connects and says nothing holds one for ten seconds, no longer; beyond these,
and those that wait, connections are closed at once."""


class Handshakes:
    """Accepted connections on 15008, until they are sessions; and the sessions of each pod, until they end."""

    def __init__(
        self, inbound: Inbound, ledger: Ledger, certificates: Certificates, now: Callable[[], datetime]
    ) -> None:
        self._inbound = inbound
        self._ledger = ledger
        self._certificates = certificates
        self._now = now
        self._sessions: dict[str, set[Session]] = {}
        self._arrivals, self._arrived = trio.open_memory_channel[Callable[[], Awaitable[None]]](_WAITING)
        self.failed_total = 0

    def accepted(self, uid: str, network: PodNetwork, sock: socket.socket, peer: PeerAddress) -> None:
        """Take over one accepted socket."""
        try:
            self._arrivals.send_nowait(partial(self._welcome, uid, network, sock, peer))
        except trio.WouldBlock:
            self.failed_total += 1
            sock.close()

    async def run(self, contain: Contain) -> None:
        """Do the handshakes, until cancelled."""
        slots = trio.Semaphore(_AT_ONCE)

        async def one(handshake: Callable[[], Awaitable[None]]) -> None:
            try:
                await contain(handshake)
            finally:
                slots.release()

        async with trio.open_nursery() as connections:
            async for handshake in self._arrived:
                await slots.acquire()
                connections.start_soon(one, handshake)

    def drain(self, uid: str) -> None:
        """The pod leaves the mesh, or we stop: its peers open no more tunnels here; those that are open live on."""
        for session in tuple(self._sessions.get(uid, ())):
            session.drain()

    def abort(self, uid: str, error: ConnectionFailed) -> None:
        """End every session of a pod now."""
        for session in tuple(self._sessions.get(uid, ())):
            session.abort(error)

    async def _welcome(self, uid: str, network: PodNetwork, sock: socket.socket, peer: PeerAddress) -> None:
        try:
            local = sock.getsockname()
            ends = Endpoint(canonical(ip_address(local[0])), local[1]), peer
        except OSError:
            sock.close()
            return
        try:
            with trio.fail_after(_HANDSHAKE_SECONDS):
                await self._handshake(uid, network, sock, ends)
        except trio.TooSlowError:
            self._refused(ends, TlsFailed("the peer did not complete the TLS handshake in time"))
        except ConnectionFailed as error:
            self._refused(ends, error)

    async def _handshake(
        self, uid: str, network: PodNetwork, sock: socket.socket, ends: tuple[Endpoint, PeerAddress]
    ) -> None:
        workload = self._inbound.hold.world.workload(uid)
        if workload is None:
            sock.close()
            raise TlsFailed("the workload has left the mesh")
        try:
            certificate = await self._certificates.fetch(workload.identity)
        except BaseException:
            sock.close()
            raise
        link = await welcome(sock, certificate.server_context)
        try:
            identity = prove(link.tls, certificate.bundles, self._now())
            acceptor = TunnelAcceptor(self._inbound, (uid, network), ends, identity)
            session = Session(
                self._inbound.engine, link, self._ledger, partial(self._ended, uid), acceptor.requested
            )
        except BaseException:
            link.sock.close()
            raise
        self._sessions.setdefault(uid, set()).add(session)

    def _ended(self, uid: str, session: Session, error: ConnectionFailed | None) -> None:
        sessions = self._sessions.get(uid, set())
        sessions.discard(session)
        if not sessions:
            self._sessions.pop(uid, None)

    def _refused(self, ends: tuple[Endpoint, PeerAddress], error: ConnectionFailed) -> None:
        self.failed_total += 1
        local, peer = ends
        self._inbound.report.deny_early(Direction.INBOUND, peer, local, str(error))
