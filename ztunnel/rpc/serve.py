"""Serves gRPC on Trio: accepts, shakes hands, and has each call handled by its method's handler.

States of a connection:

    first byte ──> TLS handshake ──> serving ──drain, age, idleness──> leaving (GOAWAY) ──no call──> closed
       any state ── limit, error of the client, end of its stream ──> closed
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from random import Random
from typing import Final

import trio

from ztunnel.drain import closing
from ztunnel.flow.rate import Bucket, Rate, Recent
from ztunnel.flow.share import Shares
from ztunnel.identity.secure import peer_chain
from ztunnel.model.address import IPAddress, PeerAddress, canonical
from ztunnel.rpc import fields
from ztunnel.rpc.answer import Boundary, Peer, ServerCall, answer
from ztunnel.rpc.connect import Context, Tls
from ztunnel.rpc.drive import Driver
from ztunnel.rpc.limits import SERVER, Limits
from ztunnel.rpc.session import Session
from ztunnel.rpc.status import Code, RpcError
from ztunnel.rpc.stream import Stream

Handler = Callable[[ServerCall], Awaitable[None]]
"""Handles one call; an RpcError that it raises is the call's status."""

_CONNECTIONS: Final = 4000
_HANDSHAKES: Final = 512
"""At once; at a limit the newest of whoever holds the most gives way (`flow/share.py`)."""

_SOURCES: Final = 4096
_HANDSHAKE_RATE: Final = Rate(1024, 50, 250)
_FAILED_POINTS: Final = 7
"""Handshakes of one address, 1 to 2 ms of CPU each: as `inbound/serve.py` has them."""

_CALL_RATE: Final = Rate(1000, 200, 200)
"""Calls of one address: 1,000 at once, then 200 a second; its connections are read more slowly where it asks
for more."""

_GLITCH_RATE: Final = Rate(4000, 400, 2000)
"""Points for frames that carry nothing (`http2/budget.py`), of all connections of one address."""

_WARNING_SECONDS: Final = 1.0
"""Between the two GOAWAYs: calls that are under way by then are taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What a server serves, and under which limits.

    Attributes:
        boundary: where errors that nobody expected end, of a handler and of a connection: that one is over.
        methods: by path, `/package.Service/Method`.
        context: called for each connection; ALPN has to offer h2. A client certificate that it verifies is
            `Peer.certificate`.
        age_seconds: after about this time a connection is asked to leave, so that clients spread over
            replicas that came later; istiod: 30 min.
        idle_seconds: the same for one without calls.
    """

    methods: Mapping[str, Handler]
    context: Context
    boundary: Boundary
    rng: Random
    limits: Limits = SERVER
    age_seconds: float = 1800.0
    idle_seconds: float = 300.0


class _Source:
    """What one address may still do."""

    __slots__ = ("calls", "glitches", "handshakes")

    def __init__(self, now: float) -> None:
        self.handshakes = Bucket(_HANDSHAKE_RATE, now)
        self.calls = Bucket(_CALL_RATE, now)
        self.glitches = Bucket(_GLITCH_RATE, now)


@dataclass(slots=True)
class Counts:
    """What a server has seen, for metrics."""

    handshakes: int = 0
    handshakes_failed: int = 0
    turned_away: int = 0


class Server:
    """Serves until cancelled, or drained."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._connections: set[_Connection] = set()
        self._accepting = trio.CancelScope()
        self._shares = Shares(_CONNECTIONS)
        self._handshakes = Shares(_HANDSHAKES)
        self._sources: Recent[IPAddress, _Source] = Recent(_SOURCES, lambda: _Source(trio.current_time()))
        self.counts = Counts()

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    async def run(
        self,
        listeners: Sequence[trio.SocketListener],
        *,
        task_status: trio.TaskStatus[Sequence[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve; takes over the listeners, and starts with them as its value. Returns when drained."""
        async with trio.open_nursery() as nursery:
            with self._accepting:
                await trio.serve_listeners(
                    self._take, list(listeners), handler_nursery=nursery, task_status=task_status
                )

    async def drain(self, seconds: float) -> None:
        """Take nothing new, and let what is under way end; after `seconds` it is ended."""
        self._accepting.cancel()
        with trio.move_on_after(seconds):
            for each in tuple(self._connections):
                each.leave()
            while self._connections:
                await next(iter(self._connections)).ended.wait()
        for each in tuple(self._connections):
            each.scope.cancel()

    async def _take(self, tcp: trio.SocketStream) -> None:
        try:
            name = tcp.socket.getpeername()
        except OSError:
            await trio.aclose_forcefully(tcp)
            return
        peer = PeerAddress(canonical(ip_address(name[0].partition("%")[0])), name[1])
        source, now = self._sources.of(peer.ip), trio.current_time()
        scope = trio.CancelScope()
        place = None
        if source.handshakes.level(now) >= 1:
            source.handshakes.take(1, now)
            place = self._shares.enter("", peer.ip, scope.cancel)
        if place is None:
            self.counts.turned_away += 1
            await trio.aclose_forcefully(tcp)
            return
        try:
            with self._service.boundary(), scope:
                await self._serve(tcp, peer, source)
        finally:
            self._shares.leave(place)
            with closing(0):
                await trio.aclose_forcefully(tcp)

    async def _serve(self, tcp: trio.SocketStream, peer: PeerAddress, source: _Source) -> None:
        scope = trio.CancelScope()
        place = self._handshakes.enter("", peer.ip, scope.cancel)
        tls: Tls | None = None
        if place is not None:
            try:
                with scope:
                    tls = await _shake_hands(tcp, self._service)
            finally:
                self._handshakes.leave(place)
        if tls is None:
            self.counts.handshakes_failed += 1
            source.handshakes.take(_FAILED_POINTS, trio.current_time())
            return
        self.counts.handshakes += 1
        # Where a client shows none, Python gives a chain of None for a server.
        shown = tuple(peer_chain(tls._ssl_object)) if tls.getpeercert(True) else ()
        known = Peer(peer, shown[0] if shown else None, shown[1:])
        connection = _Connection(self, tls, known, source)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            connection.ended.set()


class _Connection:
    """One connection whose handshake is done."""

    def __init__(self, server: Server, tls: Tls, peer: Peer, source: _Source) -> None:
        self._service, self._counts = server._service, server.counts
        limits, now = self._service.limits, trio.current_time()
        self._session = Session(limits, server=True, now=now, peer=source.glitches)
        self._driver = Driver(tls, self._session, limits)
        self._peer = peer
        self._source = source
        self._leaving = trio.Event()
        self._calls: trio.Nursery | None = None
        self.ended = trio.Event()
        self.scope = trio.CancelScope()

    async def run(self) -> None:
        """Until it ends."""
        with self.scope:
            async with trio.open_nursery() as nursery:
                self._calls = nursery
                nursery.start_soon(self._retire)
                await self._driver.run(self._received)
                nursery.cancel_scope.cancel()

    def leave(self) -> None:
        """Ask the client to go, and end when its calls have ended."""
        self._leaving.set()

    async def _received(self) -> None:
        """Take up the calls that have come; a client that asks for too many waits."""
        opened, self._session.opened = self._session.opened, []
        assert self._calls is not None
        for stream in opened:
            self._calls.start_soon(self._answer, stream)
        if opened:
            left = self._source.calls.take(len(opened), trio.current_time())
            if left < 0:
                await trio.sleep(self._source.calls.seconds_until(0, trio.current_time()))

    async def _answer(self, stream: Stream) -> None:
        session, service = self._session, self._service
        assert stream.head is not None
        try:
            request = fields.parse_request(stream.head)
        except fields.Refused as refused:
            session.refuse(stream, refused.fields)
            self._driver.kick()
            return
        handler = service.methods.get(request.path, _unknown)
        call = ServerCall(self._driver, stream, request, self._peer, self._leaving)
        await answer(call, handler, service.boundary)

    async def _retire(self) -> None:
        """Wait until the connection is to end; then tell the client, and end when no call is left."""
        service = self._service
        age = service.age_seconds * service.rng.uniform(0.9, 1.1)
        with trio.move_on_after(age):
            await self._until_idle()
        self._leaving.set()
        self._session.go_away(final=False)
        self._driver.kick()
        await trio.sleep(_WARNING_SECONDS)
        self._session.go_away(final=True)
        self._driver.finish()

    async def _until_idle(self) -> None:
        while not self._leaving.is_set():
            if self._session.streams:
                with trio.move_on_after(self._service.idle_seconds):
                    await self._leaving.wait()
                continue
            with trio.move_on_after(self._service.idle_seconds) as scope:
                await self._leaving.wait()
            if scope.cancelled_caught and not self._session.streams:
                return


async def _unknown(call: ServerCall) -> None:
    raise RpcError(Code.UNIMPLEMENTED, f"no method {call.path[:200]!r}")


async def _shake_hands(tcp: trio.SocketStream, service: Service) -> Tls | None:
    """The TLS stream; None where the client does not do its part in time, or cannot."""
    limits = service.limits
    with trio.move_on_after(limits.handshake_seconds):
        try:
            with trio.move_on_after(limits.first_byte_seconds) as first:
                await tcp.socket.recv(1, socket.MSG_PEEK)
            if first.cancelled_caught:
                return None
            tls = trio.SSLStream(tcp, service.context(), server_side=True, https_compatible=True)
            await tls.do_handshake()
        except (trio.BrokenResourceError, OSError):  # ssl.SSLError is one
            return None
        return tls if tls.selected_alpn_protocol() == "h2" else None
    return None
