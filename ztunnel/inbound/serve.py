"""Serves HBONE in pods: the TLS handshake in Trio, who the peer is, then a session the engine carries."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from ipaddress import ip_address
from typing import NamedTuple

import trio

from ztunnel.errors import ConnectionFailed, TlsFailed, Unreachable
from ztunnel.flow.rate import Bucket, Rate, Recent
from ztunnel.flow.share import Place, Shares
from ztunnel.hbone.carry import Session
from ztunnel.hbone.limits import Ledger
from ztunnel.hbone.listen import welcome
from ztunnel.hbone.standing import Standing
from ztunnel.identity.rotate import Certificates
from ztunnel.identity.secure import peer as prove
from ztunnel.inbound.accept import Inbound, LocalPod
from ztunnel.inbound.answer import TunnelAcceptor
from ztunnel.model.address import Endpoint, IPAddress, PeerAddress, canonical
from ztunnel.model.connection import Direction
from ztunnel.model.identity import SpiffeId

Contain = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
"""Runs one connection's part; a bug in it ends that part, is logged and counted, and nothing else
(`run/reporting.py`)."""

HANDSHAKE_SECONDS = 10.0
FIRST_BYTE_SECONDS = 3.0
"""For the peer's first byte, which it sends as soon as TCP stands."""

PLACES = 1024
"""Handshakes under way; each is a task of a few KiB. At the limit the newest of the greediest gives way
(`flow/share.py`): a peer that says nothing on all of its connections keeps only itself waiting."""

_PER_SOURCE = 2
_THREADS = 2
"""Of one address so many handshakes are computed at once, in so many threads: 2 ms each, which nobody's bytes
wait for. So a newcomer waits for two of each address before it, however many they have begun."""

_RATE = Rate(1024, 50, 250)
_FAILED_POINTS = 7
_CALMED_POINTS = 50
"""Handshakes of one address: 1,024 at once, then 50 a second, which is a tenth of a core. One that fails
counts as eight, and one whose session was closed for what the peer did on it as 50. Five seconds forgive
all."""

_SOURCES = 4096
"""Addresses, and identities at addresses, that are remembered; the one goes that was not seen for longest."""


class _Source:
    """One address: what it may still begin, and its turns to compute."""

    __slots__ = ("_threads", "_turns", "bucket")

    def __init__(self, threads: trio.CapacityLimiter, now: float) -> None:
        self._threads = threads
        self._turns = trio.Semaphore(_PER_SOURCE)
        self.bucket = Bucket(_RATE, now)

    async def compute(self, step: Callable[[], None]) -> None:
        """A step of a handshake."""
        async with self._turns:
            await trio.to_thread.run_sync(step, limiter=self._threads)


class _Arrival(NamedTuple):
    pod: LocalPod
    sock: socket.socket
    peer: PeerAddress
    source: _Source
    scope: trio.CancelScope
    place: Place


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
        self._places = Shares(PLACES)
        threads = trio.CapacityLimiter(_THREADS)
        self._sources: Recent[IPAddress, _Source] = Recent(
            _SOURCES, lambda: _Source(threads, inbound.engine.clock())
        )
        self._standings: Recent[tuple[SpiffeId, IPAddress], Standing] = Recent(
            _SOURCES, lambda: Standing(inbound.engine.now)
        )
        self._arrivals, self._arrived = trio.open_memory_channel[_Arrival](PLACES)
        self.failed_total = 0

    def accepted(self, pod: LocalPod, sock: socket.socket, peer: PeerAddress) -> None:
        """Take over one accepted socket."""
        source, now = self._sources.of(peer.ip), self._inbound.engine.clock()
        if source.bucket.level(now) < 1:
            self._turn_away(sock, peer, "too many handshakes from this address")
            return
        source.bucket.take(1, now)
        scope = trio.CancelScope()
        place = self._places.enter(pod.uid, peer.ip, scope.cancel)
        if place is None:
            self._turn_away(sock, peer, "too many handshakes are under way, most of them from this address")
            return
        try:
            self._arrivals.send_nowait(_Arrival(pod, sock, peer, source, scope, place))
        except (trio.WouldBlock, trio.BrokenResourceError):
            # Those that gave way have not left yet, or `run` has ended.
            self._places.leave(place)
            self._turn_away(sock, peer, "no more handshakes are done")

    async def run(self, contain: Contain) -> None:
        """Do the handshakes, until cancelled; then those that wait are closed."""
        try:
            async with trio.open_nursery() as connections:
                async for arrival in self._arrived:
                    connections.start_soon(self._take, contain, arrival)
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

    def _turn_away(self, sock: socket.socket, peer: PeerAddress, reason: str) -> None:
        """Close it at once, before anything was done for it."""
        try:
            ends = _own_end(sock), peer
        except OSError:
            self.failed_total += 1
        else:
            self._refused(ends, TlsFailed(reason))
        sock.close()

    async def _take(self, contain: Contain, arrival: _Arrival) -> None:
        try:
            await contain(partial(self._welcome, arrival))
        finally:
            self._places.leave(arrival.place)

    def _close_waiting(self) -> None:
        while True:
            try:
                arrival = self._arrived.receive_nowait()
            except trio.WouldBlock:
                break
            arrival.sock.close()
            self._places.leave(arrival.place)
        self._arrived.close()

    async def _welcome(self, arrival: _Arrival) -> None:
        """From an accepted socket to a session; whatever happens before that closes the socket."""
        sock, peer, scope = arrival.sock, arrival.peer, arrival.scope
        try:
            ends = _own_end(sock), peer
        except OSError:
            sock.close()
            return
        error: ConnectionFailed
        try:
            with scope, trio.fail_after(HANDSHAKE_SECONDS):
                try:
                    await _first_byte(sock)
                except BaseException:
                    sock.close()
                    raise
                engine = self._inbound.engine
                engine.awaited += 1
                try:
                    await self._handshake(arrival, ends)
                finally:
                    engine.awaited -= 1
                return
            error = TlsFailed("too many handshakes are under way, most of them from this address")
        except trio.TooSlowError:
            error = TlsFailed("the peer did not complete the TLS handshake in time")
        except ConnectionFailed as failure:
            error = failure
        except OSError as failure:
            error = Unreachable(f"the session could not begin: {failure}")
        self._refused(ends, error)

    async def _handshake(self, arrival: _Arrival, ends: tuple[Endpoint, PeerAddress]) -> None:
        pod, sock, peer = arrival.pod, arrival.sock, arrival.peer
        inbound = self._inbound
        try:
            workload = inbound.hold.world.workload(pod.uid)
            if workload is None:
                raise TlsFailed("the workload has left the mesh")
            certificate = await self._certificates.fetch(workload.identity)
            link = await welcome(sock, certificate.server_context, arrival.source.compute)
            identity = prove(link.tls, certificate.bundles, self._now())
            acceptor = TunnelAcceptor(inbound, pod, ends, identity)
            standing = self._standings.of((identity, peer.ip))
            ended = partial(self._ended, pod.uid, peer.ip)
            session = Session(inbound.engine, link, self._ledger, ended, acceptor.requested, standing)
        except BaseException:
            arrival.source.bucket.take(_FAILED_POINTS, inbound.engine.clock())
            sock.close()
            raise
        self._sessions.setdefault(pod.uid, set()).add(session)
        if not pod.serving:  # it was removed while the peer shook hands
            session.drain()

    def _ended(self, uid: str, source: IPAddress, session: Session, error: ConnectionFailed | None) -> None:
        if session.calmed:
            self._sources.of(source).bucket.take(_CALMED_POINTS, self._inbound.engine.clock())
        sessions = self._sessions.get(uid, set())
        sessions.discard(session)
        if not sessions:
            self._sessions.pop(uid, None)

    def _refused(self, ends: tuple[Endpoint, PeerAddress], error: ConnectionFailed) -> None:
        self.failed_total += 1
        local, peer = ends
        self._inbound.report.deny_early(Direction.INBOUND, peer, local, str(error))


def _own_end(sock: socket.socket) -> Endpoint:
    """The pod's address that was called. Raises OSError."""
    local = sock.getsockname()
    return Endpoint(canonical(ip_address(local[0])), local[1])


async def _first_byte(sock: socket.socket) -> None:
    """Wait until the peer says something. Raises TlsFailed if it does not, OSError."""
    with trio.move_on_after(FIRST_BYTE_SECONDS):
        await trio.lowlevel.wait_readable(sock)
        if not sock.recv(1, socket.MSG_PEEK):
            raise TlsFailed("the peer closed the connection during the TLS handshake")
        return
    raise TlsFailed("the peer connected and said nothing")
