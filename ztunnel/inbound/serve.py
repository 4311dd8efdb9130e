"""Serves HBONE in pods: the TLS handshake in Trio, who the peer is, then a session the engine carries."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from ipaddress import ip_address
from typing import NamedTuple

import trio

from ztunnel.errors import ConnectionFailed, TlsFailed, Unreachable
from ztunnel.hbone.carry import Session
from ztunnel.hbone.limits import Ledger
from ztunnel.hbone.listen import welcome
from ztunnel.identity.rotate import Certificates
from ztunnel.identity.secure import peer as prove
from ztunnel.inbound.accept import Inbound, LocalPod
from ztunnel.inbound.answer import TunnelAcceptor
from ztunnel.model.address import Endpoint, IPAddress, PeerAddress, canonical
from ztunnel.model.connection import Direction

Contain = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
"""Runs one connection's part; a bug in it ends that part, is logged and counted, and nothing else
(`run/reporting.py`)."""

HANDSHAKE_SECONDS = 10.0
_WAITING = 1024
_AT_ONCE = 512
_PER_PEER = 256
"""Handshakes under way. A peer that connects and says nothing holds one for ten seconds, no longer; beyond
these, and those that wait, connections are closed at once. No address has more than half of the places: a
peer that says nothing on all of its connections keeps only itself waiting."""


class _Arrival(NamedTuple):
    pod: LocalPod
    sock: socket.socket
    peer: PeerAddress


class Handshakes:
    """Accepted connections on 15008, until they are sessions; and the sessions of each pod, until they
    end."""

    def __init__(
        self, inbound: Inbound, ledger: Ledger, certificates: Certificates, now: Callable[[], datetime]
    ) -> None:
        self._inbound = inbound
        self._ledger = ledger
        self._certificates = certificates
        self._now = now
        self._sessions: dict[str, set[Session]] = {}
        self._peers: Counter[IPAddress] = Counter()
        self._arrivals, self._arrived = trio.open_memory_channel[_Arrival](_WAITING)
        self.failed_total = 0

    def accepted(self, pod: LocalPod, sock: socket.socket, peer: PeerAddress) -> None:
        """Take over one accepted socket."""
        if self._peers[peer.ip] < _PER_PEER:
            try:
                self._arrivals.send_nowait(_Arrival(pod, sock, peer))
            except (trio.WouldBlock, trio.BrokenResourceError):  # full, or `run` has ended
                pass
            else:
                self._peers[peer.ip] += 1
                return
        self.failed_total += 1
        sock.close()

    async def run(self, contain: Contain) -> None:
        """Do the handshakes, until cancelled; then those that wait are closed."""
        slots = trio.Semaphore(_AT_ONCE)
        try:
            async with trio.open_nursery() as connections:
                while True:
                    await slots.acquire()
                    arrival = await self._arrived.receive()
                    connections.start_soon(self._take, contain, slots, arrival)
        finally:
            self._close_waiting()

    def sessions(self, uid: str) -> int:
        """How many sessions a pod has."""
        return len(self._sessions.get(uid, ()))

    def drain(self, uid: str) -> None:
        """The pod leaves the mesh, or we stop: its peers open no more tunnels here; those that are open live
        on."""
        for session in tuple(self._sessions.get(uid, ())):
            session.drain()

    def abort(self, uid: str, error: ConnectionFailed) -> None:
        """End every session of a pod now."""
        for session in tuple(self._sessions.get(uid, ())):
            session.abort(error)

    async def _take(self, contain: Contain, slots: trio.Semaphore, arrival: _Arrival) -> None:
        try:
            await contain(partial(self._welcome, arrival))
        finally:
            slots.release()
            self._gone(arrival.peer)

    def _gone(self, peer: PeerAddress) -> None:
        self._peers[peer.ip] -= 1
        if not self._peers[peer.ip]:
            del self._peers[peer.ip]

    def _close_waiting(self) -> None:
        while True:
            try:
                arrival = self._arrived.receive_nowait()
            except trio.WouldBlock:
                break
            arrival.sock.close()
            self._gone(arrival.peer)
        self._arrived.close()

    async def _welcome(self, arrival: _Arrival) -> None:
        """From an accepted socket to a session; whatever happens before that closes the socket."""
        sock, peer = arrival.sock, arrival.peer
        try:
            local = sock.getsockname()
            ends = Endpoint(canonical(ip_address(local[0])), local[1]), peer
        except OSError:
            sock.close()
            return
        try:
            with trio.fail_after(HANDSHAKE_SECONDS):
                await self._handshake(arrival, ends)
        except trio.TooSlowError:
            self._refused(ends, TlsFailed("the peer did not complete the TLS handshake in time"))
        except ConnectionFailed as error:
            self._refused(ends, error)
        except OSError as error:
            self._refused(ends, Unreachable(f"the session could not begin: {error}"))

    async def _handshake(self, arrival: _Arrival, ends: tuple[Endpoint, PeerAddress]) -> None:
        pod, sock, _ = arrival
        inbound = self._inbound
        try:
            workload = inbound.hold.world.workload(pod.uid)
            if workload is None:
                raise TlsFailed("the workload has left the mesh")
            certificate = await self._certificates.fetch(workload.identity)
            link = await welcome(sock, certificate.server_context)
            identity = prove(link.tls, certificate.bundles, self._now())
            acceptor = TunnelAcceptor(inbound, pod, ends, identity)
            session = Session(
                inbound.engine, link, self._ledger, partial(self._ended, pod.uid), acceptor.requested
            )
        except BaseException:
            sock.close()
            raise
        self._sessions.setdefault(pod.uid, set()).add(session)
        if not pod.serving:  # it was removed while the peer shook hands
            session.drain()

    def _ended(self, uid: str, session: Session, error: ConnectionFailed | None) -> None:
        sessions = self._sessions.get(uid, set())
        sessions.discard(session)
        if not sessions:
            self._sessions.pop(uid, None)

    def _refused(self, ends: tuple[Endpoint, PeerAddress], error: ConnectionFailed) -> None:
        self.failed_total += 1
        local, peer = ends
        self._inbound.report.deny_early(Direction.INBOUND, peer, local, str(error))
