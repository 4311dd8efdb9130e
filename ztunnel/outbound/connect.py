"""Starts a call the way that was decided: out of the mesh as plain TCP, or on a tunnel. `Call` is one such
connection.

A call holds the application's socket until somebody who carries bytes takes it over: a splice, or a tunnel.
Where its connect() waits for the far end (`outbound/defer.py`), the socket comes when that has answered.
Whatever goes wrong before that, the application sees a reset or its connect() fails, and its account is
closed with the reason.

    accepted ── open ──> accounted ── hand_over ──> carried ── ended ──> over
       └───────── fail ──────┴── fail ──> over         └── abort, by who carries it ──> over
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from errno import ECONNRESET
from typing import Final, Protocol

from ztunnel.errors import Busy, ConnectionFailed, Denied, Exhausted, HandshakeFailed, Unreachable
from ztunnel.flow.connect import Connecting, connect
from ztunnel.flow.engine import Engine
from ztunnel.flow.flow import Counts
from ztunnel.flow.held import HeldBytes, Share
from ztunnel.flow.share import Place, Shares
from ztunnel.flow.splice import OnEnd, close_with_reset
from ztunnel.hbone.ask import OutgoingTunnel
from ztunnel.hbone.carry import Session
from ztunnel.hbone.pool import PoolKey
from ztunnel.http2.fields import Fields
from ztunnel.kernel.dial import dial_socket, keep_source
from ztunnel.kernel.sockets import Keepalive
from ztunnel.model.address import Endpoint, PeerAddress, ip_text
from ztunnel.outbound.defer import Deferred, Joining, OnOpen
from ztunnel.outbound.find import Wanted
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.telemetry.journey import Journey
from ztunnel.telemetry.report import Account, Report

_DENIED_STATUSES: Final = (401, 403)
_UNAVAILABLE: Final = 503
_TUNNEL_ATTEMPTS: Final = 2
"""A pooled session may have died unseen: no byte was sent on it, so another one is tried, once."""


class Carrier(Protocol):
    """Whoever has a call in hand: `PlainCall`, `TunnelCall`, `oversee.DirectCall`."""

    def abort(self, error: ConnectionFailed) -> None:
        """End it now, wherever it stands; the call is told."""


class Calls:
    """The calls of this node that live, from accept to end: a drain waits for them, and aborts those that
    stay.

    Attributes:
        room: places for connections, of all ways; each may take two descriptors.
        held: bytes that either side has not taken, of all ways.
    """

    def __init__(self, room: Shares | None = None, held: HeldBytes | None = None) -> None:
        self.room = room or Shares()
        self.held = held or HeldBytes()
        self._live: set[Call] = set()

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Call]:
        return iter(tuple(self._live))

    def all(self) -> frozenset[Call]:
        """Those that live."""
        return frozenset(self._live)

    def add(self, call: Call) -> None:
        """It lives."""
        self._live.add(call)

    def discard(self, call: Call) -> None:
        """It is over; harmless a second time."""
        self._live.discard(call)

    def abort(self, error: ConnectionFailed) -> None:
        """End all of them now. One that cannot be ended (a bug, which is raised at the end) keeps none of the
        others."""
        with ExitStack() as aborts:
            for call in self._live:
                aborts.callback(call.abort, error)


class Call:
    """One connection that an application made.

    Attributes:
        opener: its socket, None once somebody else owns it, or where it has not come yet.
        deferred: its connect() as long as that waits for us, else None.
        live: until it is over.
        peer: where it comes from.
        journey: what to report of it, None until that is known.
        account: None until it is opened; without one, a failure is reported as a refusal.
        carrier: whoever has it in hand, None before and after.
        elsewhere: has it tried at another endpoint, and says whether there is one; None where it must not.
        place: its own among all connections of the node.
        retries: how often it was tried again.
        share: of the bytes that are held for applications.
    """

    __slots__ = (
        "_calls",
        "account",
        "carrier",
        "counts",
        "deferred",
        "elsewhere",
        "journey",
        "live",
        "opener",
        "peer",
        "place",
        "report",
        "retries",
        "share",
    )

    def __init__(
        self, opener: socket.socket | Deferred, peer: PeerAddress, report: Report, calls: Calls
    ) -> None:
        """Takes over `opener`."""
        self._calls = calls
        self.opener: socket.socket | None = None
        self.deferred: Deferred | None = None
        if isinstance(opener, Deferred):
            self.deferred = opener
            opener.caller = self
        else:
            self.opener = opener
        self.live = True
        self.peer = peer
        self.journey: Journey | None = None
        self.account: Account | None = None
        self.carrier: Carrier | None = None
        self.elsewhere: Callable[[ConnectionFailed], bool] | None = None
        self.place: Place | None = None
        self.retries = 0
        self.share: Share | None = None
        self.counts = Counts()
        self.report = report
        calls.add(self)

    def open(self, journey: Journey) -> None:
        """It goes that way from now on. A second time: another way than was thought at first."""
        self.journey = journey
        if self.account is None:
            self.account = self.report.open(journey, self.peer, self.counts)
        else:
            self.report.reroute(self.account, journey)

    def fail(self, error: ConnectionFailed) -> None:
        """The application gets a reset, or its connect() fails; the log gets the reason. Unless another
        endpoint can be tried, once. Nothing happens once it is over."""
        elsewhere, self.elsewhere = self.elsewhere, None
        if elsewhere is not None and error.elsewhere and self.waits and elsewhere(error):
            return
        opener, self.opener = self.opener, None
        if opener is not None:
            close_with_reset(opener)
        self.ended(error)

    def give_way(self) -> None:
        """Somebody else gets its place."""
        self.abort(Exhausted())

    def abort(self, error: ConnectionFailed) -> None:
        """End it now, wherever it stands."""
        if self.carrier is not None:
            self.carrier.abort(error)
        else:
            self.fail(error)

    def ended(self, error: ConnectionFailed | None) -> None:
        """Whoever carried it says that it is over."""
        journey, self.journey = self.journey, None
        deferred, self.deferred = self.deferred, None
        self.live = False
        self.carrier = None
        if deferred is not None:
            deferred.fail(error.errno if error is not None else ECONNRESET)
        self._calls.discard(self)
        place, self.place = self.place, None
        if place is not None:
            self._calls.room.leave(place)
        if self.account is not None:
            self.account.retries = self.retries
            self.report.close(self.account, error)
        elif journey is not None and error is not None:
            self.report.refuse(journey, self.peer, error)

    @property
    def waits(self) -> bool:
        """Whether nobody carries it yet, and nothing was told to its application."""
        return self.opener is not None or self.deferred is not None

    def hand_over(self) -> socket.socket | None:
        """The application's socket, from now on the caller's; None where it has not come yet."""
        opener, self.opener = self.opener, None
        return opener

    def when_open(self, on_open: OnOpen) -> None:
        """The far end has answered. `on_open(socket)` is called with the application's, at once where it is
        here, and later unless the call is aborted before."""
        opener = self.hand_over()
        if opener is not None:
            on_open(opener)
        elif self.deferred is not None:
            self.deferred.open(on_open)

    def join(self, engine: Engine, target: socket.socket, on_end: OnEnd) -> Joining:
        """Have its bytes carried to `target` and back, which is taken over; `on_end` follows in any case."""
        joining = Joining(engine, target, self.counts, on_end, self.share)
        self.when_open(joining.opened)
        return joining


def unreachable(endpoint: Endpoint, error: OSError) -> ConnectionFailed:
    """What to tell about a TCP connection that could not be made."""
    if error.errno == errno.ETIMEDOUT:
        failed = Unreachable(f"connection timed out: {endpoint}")
        failed.errno = errno.EHOSTUNREACH
        return failed
    failed = Unreachable(f"connection failed: {endpoint}: {error.strerror or error}")
    failed.errno = error.errno or errno.ECONNREFUSED
    return failed


class PlainCall:
    """A call that goes to `endpoint` as plain TCP, from the pod's own namespace and address."""

    __slots__ = ("_call", "_connecting", "_endpoint", "_engine", "_keepalive", "_sock", "_splice")

    def __init__(
        self, engine: Engine, call: Call, endpoint: Endpoint, keepalive: Keepalive | None = None
    ) -> None:
        self._engine = engine
        self._keepalive = keepalive
        self._call = call
        self._endpoint = endpoint
        self._sock: socket.socket | None = None
        self._connecting: Connecting | None = None
        self._splice: Joining | None = None
        call.carrier = self

    def start(self, network: PodNetwork, seconds: float) -> None:
        """Connect, then carry."""
        ip = self._endpoint.ip
        try:
            self._sock = sock = dial_socket(network.netns, ip, self._keepalive)
            keep = network.chosen(self._call.peer.ip, ip)
            if keep is not None:
                keep_source(sock, keep)
            self._connecting = connect(
                self._engine, sock, (ip_text(ip), self._endpoint.port), seconds, self._connected
            )
        except OSError as error:
            self._fail(unreachable(self._endpoint, error))

    def abort(self, error: ConnectionFailed) -> None:
        """End it now, both sides reset."""
        if self._splice is not None:
            self._splice.abort(error)
        else:
            self._fail(error)

    def _connected(self, error: OSError | None) -> None:
        self._connecting = None
        if error is not None:
            self._fail(unreachable(self._endpoint, error))
            return
        sock, self._sock = self._sock, None
        assert sock is not None
        self._splice = self._call.join(self._engine, sock, self._call.ended)

    def _fail(self, error: ConnectionFailed) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        self._call.fail(error)


class Reopen(Protocol):
    """Whoever finds a session for a call: `find.Tunnels`."""

    def open(self, call: Wanted) -> None:
        """Start it, now or when a session stands; it is told what becomes of it."""

    def again(self, call: Wanted, error: Busy) -> None:
        """Start it after a pause, or fail it where there were too many."""


class TunnelCall(Wanted):
    """A call that asks for a tunnel; the session that takes it tells it what becomes of it (`hbone.ask`).

    Attributes:
        block: the CONNECT's header block.
    """

    __slots__ = ("_attempts", "_stands", "_tunnel", "_tunnels", "block", "call")

    def __init__(
        self, tunnels: Reopen, call: Call, way: tuple[PoolKey, PodNetwork, bytes], stands: Callable[[], bool]
    ) -> None:
        """`way` are `key`, `network`, `block`. `stands()` says whether what was decided is still true; where
        not, it decides anew, and the call has gone that way when it returns."""
        key, network, block = way
        super().__init__(key, network)
        self._tunnels = tunnels
        self._attempts = 0
        self._stands = stands
        self._tunnel: OutgoingTunnel | None = None
        self.call = call
        self.block = block
        call.carrier = self

    @property
    def live(self) -> bool:
        """Whether it has not ended meanwhile."""
        return self.call.live

    def still_wants(self) -> bool:
        """Whether it is to be started now, after a wait: it has not ended meanwhile, and still goes this
        way."""
        return self.call.live and self._stands()

    def begin(self, session: Session, answer_seconds: float) -> None:
        """A session has room for it."""
        held = self.call
        app = held.hand_over()
        try:
            self._tunnel = session.open(self.block, app, held.counts, self, answer_seconds)
        except BaseException:
            held.opener = app
            held.fail(ConnectionFailed("internal error"))
            raise
        self._attempts += 1

    def count_retry(self) -> int:
        """It is tried again. Returns how often it was before."""
        before = self.call.retries
        self.call.retries = before + 1
        return before

    def fail(self, error: ConnectionFailed) -> None:
        """There is no session for it."""
        self.call.fail(error)

    def abort(self, error: ConnectionFailed) -> None:
        """End it now. Where it waits for a session, it is passed over when its turn comes."""
        if self._tunnel is not None:
            self._tunnel.abort(error)
        else:
            self.call.fail(error)

    def established(self, untrusted: Fields) -> None:
        """The other end answered 200: from now on bytes flow, as soon as the application's socket is here."""
        tunnel = self._tunnel
        if tunnel is not None and tunnel.waits_for_app:
            self.call.when_open(tunnel.attach)

    def refused(self, status: int, untrusted: Fields, app: socket.socket | None) -> None:
        """The other end answered otherwise."""
        self._tunnel = None
        self.call.opener = self.call.opener or app
        kind = Denied if status in _DENIED_STATUSES else HandshakeFailed
        error = kind(f"http status: {status}")
        error.elsewhere = status == _UNAVAILABLE
        self.call.fail(error)

    def lost(self, app: socket.socket | None, error: ConnectionFailed) -> None:
        """The session went before it answered, and no byte was lost with it."""
        self._tunnel = None
        self.call.opener = self.call.opener or app
        if isinstance(error, Busy):
            self._attempts -= 1
            self._tunnels.again(self, error)
        elif not error.retryable or self._attempts >= _TUNNEL_ATTEMPTS:
            self.call.fail(error)
        elif self._stands():
            self.call.retries += 1
            self._tunnels.open(self)

    def ended(self, error: ConnectionFailed | None) -> None:
        """The tunnel is over."""
        self._tunnel = None
        self.call.ended(error)
