"""Serves HBONE in pods: who may begin a TLS handshake, who the peer is, then a session the engine carries.

Everything is done in the engine, but the handshakes' steps, which are computed in threads in turns, and the
wait for a certificate of our own where there is none yet.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from ipaddress import ip_address
from typing import NamedTuple

import trio

from ztunnel.errors import ConnectionFailed, Drained, TlsFailed, Unreachable
from ztunnel.flow.compute import Computers
from ztunnel.flow.held import Share
from ztunnel.flow.rate import Bucket, Rate, Recent
from ztunnel.flow.share import Place, Shares
from ztunnel.hbone.accept import Handshake
from ztunnel.hbone.answer import IncomingTunnel
from ztunnel.hbone.carry import Incoming, OnRequest, Session
from ztunnel.hbone.ledger import Ledger
from ztunnel.hbone.link import TlsLink
from ztunnel.http2.standing import Standing
from ztunnel.identity.rotate import Certificate, Certificates
from ztunnel.identity.secure import peer as prove
from ztunnel.inbound.accept import Inbound, LocalPod
from ztunnel.inbound.answer import TunnelAcceptor
from ztunnel.model.address import Endpoint, IPAddress, PeerAddress, canonical
from ztunnel.model.connection import Direction
from ztunnel.model.identity import SpiffeId

Contain = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
"""Runs one connection's part; a bug in it ends that part, is logged and counted, and nothing else
(`run/reporting.py`)."""

PLACES = 1024
"""Handshakes under way; each is a descriptor and some KiB. At the limit the newest of the greediest gives way
(`flow/share.py`): a peer that says nothing on all of its connections keeps only itself waiting."""

_THREADS = 2
"""Steps of handshakes are computed in so many threads, 2 ms for each handshake, which nobody's bytes wait
for: in turns between pods, and between the addresses that call one, so that a newcomer waits for one step of
each however many they have begun."""

_RATE = Rate(1024, 50, 250)
_FAILED_POINTS = 7
_CALMED_POINTS = 50
"""Handshakes of one address: 1,024 at once, then 50 a second, which is a tenth of a core. One that fails
counts as eight, and one whose session was closed for what the peer did on it as 50. Five seconds forgive
all. Where eBPF captures, the kernel refuses what is above it."""

_LATE_SECONDS = 1.0
"""A session that is late still takes the tunnels that it was made for."""

_SOURCES = 4096
"""Addresses, and identities at addresses, that are remembered; the one goes that was not seen for longest."""

_MOST_FROM_HERE = "too many handshakes are under way, most of them from this address"


class _Arrival:
    """One accepted connection, until it is a session or refused."""

    __slots__ = ("_owner", "certificate", "ends", "handshake", "place", "pod", "share")

    def __init__(
        self,
        owner: Handshakes,
        pod: LocalPod,
        ends: tuple[Endpoint, PeerAddress],
        sock: socket.socket,
        share: Share,
    ) -> None:
        """Takes over `sock`. Raises OSError."""
        self._owner = owner
        self.pod = pod
        self.ends = ends
        self.place: Place | None = None
        self.certificate: Certificate | None = None
        self.share = share
        self.handshake = Handshake(owner.engine, sock, self, share)

    def give_way(self) -> None:
        """There are others who have less."""
        self.handshake.fail(TlsFailed(_MOST_FROM_HERE))

    def spoke(self) -> None:
        """The peer has said something."""
        self._owner.spoke(self)

    def begin(self, certificate: Certificate) -> None:
        """Prove with this certificate who the pod is."""
        self.certificate = certificate
        submit = partial(self._owner.computers.submit, self.pod.uid, self.ends[1].ip)
        self.handshake.begin(certificate.server_context, submit)

    def ended(self, link: TlsLink | None, error: ConnectionFailed) -> None:
        """The handshake is over."""
        self._owner.ended(self, link, error)


class Serving(NamedTuple):
    """What a session is to do with what its peer asks for."""

    requested: OnRequest
    incoming: Incoming = IncomingTunnel


Begin = Callable[[Inbound, LocalPod, tuple[Endpoint, PeerAddress], SpiffeId], Serving]
"""What the session between these ends is to do, whose peer has proved that identity."""


def into_pods(
    inbound: Inbound, pod: LocalPod, ends: tuple[Endpoint, PeerAddress], identity: SpiffeId
) -> Serving:
    """A node proxy's: to the application of the pod."""
    return Serving(TunnelAcceptor(inbound, pod, ends, identity).requested)


class Handshakes:
    """Accepted connections on 15008, until they are sessions; and the sessions of each pod, until they
    end."""

    def __init__(
        self,
        inbound: Inbound,
        ledger: Ledger,
        certificates: Certificates,
        now: Callable[[], datetime],
        begin: Begin = into_pods,
    ) -> None:
        self._begin = begin
        self.engine = inbound.engine
        self.computers = Computers(inbound.engine, _THREADS)
        self._inbound = inbound
        self._ledger = ledger
        self._certificates = certificates
        self._now = now
        self._sessions: dict[str, set[Session]] = {}
        self._places = Shares(PLACES)
        self._arrivals: dict[_Arrival, None] = {}
        self._ended = False
        clock = inbound.engine.clock
        self._sources: Recent[IPAddress, Bucket] = Recent(_SOURCES, lambda: Bucket(_RATE, clock()))
        self._standings: Recent[tuple[SpiffeId, IPAddress], Standing] = Recent(
            _SOURCES, lambda: Standing(inbound.engine.now)
        )
        self._uncertified, self._wait_for = trio.open_memory_channel[_Arrival](PLACES)
        self.failed_total = 0

    def accepted(self, pod: LocalPod, sock: socket.socket, peer: PeerAddress) -> None:
        """Take over one accepted socket."""
        bucket, now = self._sources.of(peer.ip), self.engine.clock()
        if self._ended:
            self._turn_away(sock, peer, "no more handshakes are done")
            return
        if bucket.level(now) < 1:
            self._turn_away(sock, peer, "too many handshakes from this address")
            with suppress(OSError):  # it comes here again then
                self._inbound.turn_away(peer.ip, bucket.seconds_until(1, now))
            return
        bucket.take(1, now)
        try:
            share = self._ledger.held.share(pod.network.cookie, peer.ip)
            arrival = _Arrival(self, pod, (_own_end(sock), peer), sock, share)
        except OSError:
            sock.close()
            return
        self._arrivals[arrival] = None
        arrival.place = self._places.enter(pod.uid, peer.ip, arrival.give_way)
        if arrival.place is None:
            arrival.give_way()

    async def run(self, contain: Contain) -> None:
        """Wait for certificates where there is none yet, until cancelled: then no handshakes are done any
        more, and those under way are closed."""
        try:
            async with trio.open_nursery() as nursery:
                async for arrival in self._wait_for:
                    nursery.start_soon(contain, partial(self._fetch, arrival))
                    del arrival  # it is not held until the next one comes
        finally:
            self._ended = True
            self.computers.close()
            for arrival in tuple(self._arrivals):
                arrival.handshake.fail(Drained("connection closed due to connection drain"))

    # What becomes of an arrival.

    def spoke(self, arrival: _Arrival) -> None:
        """The peer has said something: it is worth a handshake, once the pod has a certificate."""
        workload = self._inbound.hold.world.workload(arrival.pod.uid)
        if workload is None:
            arrival.handshake.fail(TlsFailed("the workload has left the mesh"))
            return
        certificate = self._certificates.current(workload.identity)
        if certificate is not None:
            arrival.begin(certificate)
            return
        try:
            self._uncertified.send_nowait(arrival)
        except trio.WouldBlock:
            arrival.handshake.fail(TlsFailed("too many handshakes wait for a certificate of the pod"))

    async def _fetch(self, arrival: _Arrival) -> None:
        """Wait for the pod's first certificate, as long as the peer does."""
        workload = self._inbound.hold.world.workload(arrival.pod.uid)
        try:
            if workload is None:
                raise TlsFailed("the workload has left the mesh")
            certificate = await self._certificates.fetch(workload.identity)
        except ConnectionFailed as error:
            arrival.handshake.fail(error)
        else:
            arrival.begin(certificate)

    def ended(self, arrival: _Arrival, link: TlsLink | None, error: ConnectionFailed) -> None:
        """A handshake is over; where TLS stands, the link is ours."""
        self._arrivals.pop(arrival, None)
        place, arrival.place = arrival.place, None  # which holds the arrival in turn
        if place is not None:
            self._places.leave(place)
        if link is not None:
            try:
                self._serve(arrival, link)
            except ConnectionFailed as failure:
                error = failure
            except OSError as failure:
                error = Unreachable(f"the session could not begin: {failure}")
            else:
                return
        if arrival.handshake.begun:
            self._sources.of(arrival.ends[1].ip).take(_FAILED_POINTS, self.engine.clock())
        if not self._ended:
            self._refused(arrival.ends, error)

    def _serve(self, arrival: _Arrival, link: TlsLink) -> None:
        """Raises ConnectionFailed, OSError: the link is closed."""
        pod, certificate, (_, peer) = arrival.pod, arrival.certificate, arrival.ends
        assert certificate is not None
        try:
            identity = prove(link.tls, certificate.bundles, self._now())
            serving = self._begin(self._inbound, pod, arrival.ends, identity)
            standing = self._standings.of((identity, peer.ip))
            ended = partial(self._session_ended, pod.uid, peer.ip)
            session = Session(
                self.engine,
                link,
                self._ledger,
                ended,
                serving.requested,
                standing,
                arrival.share,
                serving.incoming,
            )
        except BaseException:
            link.sock.close()
            raise
        self._sessions.setdefault(pod.uid, set()).add(session)
        if not pod.serving:  # removed, or handed over, while the peer shook hands: it has calls that wait
            self.engine.after(_LATE_SECONDS, session.drain)

    # The sessions.

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

    def _session_ended(
        self, uid: str, source: IPAddress, session: Session, error: ConnectionFailed | None
    ) -> None:
        if session.calmed:
            self._sources.of(source).take(_CALMED_POINTS, self.engine.clock())
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
