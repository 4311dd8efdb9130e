"""Carries tunnels over one TLS connection, within the engine.

Bytes take the way `reader` -> `join` -> application, and application -> `join` -> `relay`; here is what
concerns the session as a whole: which tunnels there are, what time demands, and how it ends.

Memory: what a pipe holds, and the tunnels' backlogs, which the peer's windows and the ledger bound. A peer
that reads nothing does not answer PING either, and is gone after 30 s.

Every wait on the peer ends: its settings within 10 s, the answer to a PING within 20 s, the answer to
CONNECT within what the caller gives.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Final

from ztunnel.errors import ConnectionFailed, HandshakeFailed, PeerError, Unreachable
from ztunnel.flow.engine import Engine
from ztunnel.flow.flow import Counts
from ztunnel.flow.held import Share
from ztunnel.flow.pieces import AT_ONCE
from ztunnel.flow.timers import Deadlines, Timer
from ztunnel.hbone.answer import IncomingTunnel
from ztunnel.hbone.ask import OutgoingTunnel, TunnelEvents
from ztunnel.hbone.bulk import MOST_BYTES
from ztunnel.hbone.defer import Slowed
from ztunnel.hbone.hold import TunnelSession, TunnelStream
from ztunnel.hbone.ledger import Ledger
from ztunnel.hbone.link import TlsLink
from ztunnel.hbone.originate import OriginatedEvents, OriginatedTunnel
from ztunnel.hbone.relay import Pipe
from ztunnel.http2.connection import H2Connection
from ztunnel.http2.fields import Fields
from ztunnel.http2.frame import MAX_STREAM_ID, Code, code_name, push_goaway, push_ping
from ztunnel.http2.limits import Role
from ztunnel.http2.standing import DEBT_POINTS, Standing
from ztunnel.http2.stream import Stream

_NOTHING: Final = memoryview(b"")

_SILENT_SECONDS: Final = 1.0
"""Of a session on which something came lately it is not asked whether it stalls."""

_PING: Final = b"ztunnel\0"
_DRAIN_PING: Final = b"ztunnel\1"

OnSessionEnd = Callable[["Session", ConnectionFailed | None], None]
OnRequest = Callable[[TunnelStream], None]

Incoming = Callable[[TunnelSession, Fields], TunnelStream]
"""Makes the tunnel that a peer asks for, unchecked fields given."""


class Session(TunnelSession):
    """One HBONE session. It owns the link's socket, and everything is done on the engine's thread.

    Attributes:
        tls: the TLS state, for whoever wants to know the peer's certificate.
        tunnels: those that have not ended, in no order.
        waiting: those that have bytes to send and may not.
        idle_since: monotonic seconds since there has been no tunnel; None while there are some.
        calmed: whether it was closed for what the peer did on it.
        on_room: called when it takes tunnels again, or will take none any more; set it where calls wait.
        read_bytes, reads: how much to read from an application at once, and how often per wake-up.
    """

    def __init__(  # noqa: PLR0913 (what differs between sessions comes last)
        self,
        engine: Engine,
        link: TlsLink,
        ledger: Ledger,
        on_end: OnSessionEnd,
        on_request: OnRequest | None = None,
        standing: Standing | None = None,
        share: Share | None = None,
        incoming: Incoming = IncomingTunnel,
    ) -> None:
        """Begin on a link whose handshake is done: as the server with `on_request`, as the client without.
        `standing` is the peer's where it is known from other sessions, `share` that of the pod and the
        peer; `incoming` makes what is given to `on_request`."""
        self.engine = engine
        self.share = share or ledger.held.share("", "")
        self.ledger = ledger
        self.tls = link.tls
        self.tunnels: set[TunnelStream] = set()
        self.waiting = set()
        self.unanswered = Deadlines(engine)
        self.idle_since: float | None = engine.now
        self.read_bytes = 0
        self.reads = 1
        self._on_end: OnSessionEnd | None = on_end
        self._on_request = on_request
        self._incoming = incoming
        self._retired = False
        self._draining = False
        self._pinged = False
        self._glitches_told = 0
        self._reads_later = False
        self._received_at = engine.now
        self.calmed = False
        self.on_room: Callable[[], None] | None = None
        role = Role.CLIENT if on_request is None else Role.SERVER
        self.pipe = Pipe(engine, link, self, ledger.limits.control_backlog_bytes)
        self.push = self.pipe.push
        self.h2 = H2Connection(self, role, ledger.limits, engine.now, standing)
        self.standing = self.h2.standing
        ledger.sessions += 1
        self._set_reads()
        self._timer: Timer = engine.after(ledger.limits.settings_seconds, self._unsettled)
        self._slowed = Slowed(engine, self.standing, ledger, self._start)
        self.pipe.start()
        self.h2.start()

    # What others ask for.

    @property
    def alive(self) -> bool:
        """Whether the connection still stands."""
        return self._on_end is not None

    @property
    def closed(self) -> bool:
        """Whether the peer takes no tunnel at all at the moment (SETTINGS_MAX_CONCURRENT_STREAMS of 0)."""
        return self.alive and not self._retired and self.h2.open_streams == 0

    @property
    def leaving(self) -> bool:
        """Whether it was retired, by us or by the peer's GOAWAY: it takes no more tunnels."""
        return self._retired or self._draining

    def can_take(self) -> bool:
        """Whether `open` may be called now. A full session takes tunnels again when some have ended."""
        return self.alive and not self._retired and self.h2.can_open and not self.stalls()

    def stalls(self) -> bool:
        """Whether nothing comes from the peer, and its kernel acknowledges nothing: it has gone, or the way
        to it has. Its TCP tries ever more rarely; a new session, which tries at once, knows sooner."""
        return self.engine.now - self._received_at > _SILENT_SECONDS and self.pipe.stalls()

    def open(
        self,
        block: bytes,
        app: socket.socket | None,
        counts: Counts,
        events: TunnelEvents,
        answer_seconds: float,
    ) -> OutgoingTunnel:
        """Send a CONNECT with this header block (request.RequestHead), and join `app` to it once it is
        answered; None follows then by `attach`.

        Takes over `app` (nonblocking, unwatched); `events` says when it is given back.

        Raises:
            Unreachable: the session takes no more; ask `can_take` first. `app` stays the caller's.
        """
        if not self.can_take():
            raise Unreachable("the session takes no more tunnels")
        tunnel = OutgoingTunnel(self, events)
        self._ask(tunnel, block)
        tunnel.begin(app, counts, answer_seconds)
        return tunnel

    def originate(self, block: bytes, events: OriginatedEvents, answer_seconds: float) -> OriginatedTunnel:
        """As `open`, for somebody in this process. Raises Unreachable."""
        if not self.can_take():
            raise Unreachable("the session takes no more tunnels")
        tunnel = OriginatedTunnel(self, events)
        self._ask(tunnel, block)
        tunnel.begin(answer_seconds)
        return tunnel

    def _ask(self, tunnel: TunnelStream, block: bytes) -> None:
        self._add(tunnel)
        self.h2.open(tunnel, block)

    def retire(self) -> None:
        """Open no more tunnels; close when the last has ended."""
        self._retired = True
        self._close_if_done()

    def drain(self) -> None:
        """Ask the peer to open no more tunnels; close when the last has ended (server).

        In two steps, so that no CONNECT under way is lost (RFC 9113 section 6.8): first a GOAWAY that
        allows every stream, and when the peer has answered a PING behind it, one that names the last.
        """
        if self.alive and not self._draining:
            self._draining = True
            self.push(push_goaway(MAX_STREAM_ID, Code.NO_ERROR) + push_ping(_DRAIN_PING))

    def abort(self, error: ConnectionFailed) -> None:
        """Close now, with GOAWAY(NO_ERROR); every tunnel ends with `error` before this returns."""
        self._close(Code.NO_ERROR, error, at_once=True)

    # H2Connection's host.

    def admits(self) -> bool:
        return self.alive and self._on_request is not None and not self.share.refuses

    def on_request(self, untrusted: Fields) -> Stream:
        tunnel = self._incoming(self, untrusted)
        self._add(tunnel)
        return tunnel

    def on_opened(self, stream: Stream) -> None:
        assert isinstance(stream, TunnelStream)
        if not self._slowed.take(stream):
            self._start(stream)

    def _start(self, tunnel: TunnelStream) -> None:
        assert self._on_request is not None
        if self.alive:
            tunnel.started = True
            self._on_request(tunnel)

    def on_settings(self) -> None:
        self._set_reads()
        if self.on_room is not None:
            self.engine.post(self._tell_room)
        if not self._pinged:
            self._timer.cancel()
            self._timer = self.engine.after(self.ledger.limits.ping_seconds, self._ping)

    def on_pong(self, opaque: bytes) -> None:
        if opaque == _DRAIN_PING and self._draining:
            self.push(push_goaway(self.h2.refuse_streams(), Code.NO_ERROR))
            self._retired = True
            self._close_if_done()
        elif opaque == _PING and self._pinged:
            self._pinged = False
            self._timer.cancel()
            self._timer = self.engine.after(self.ledger.limits.ping_seconds, self._ping)

    def on_goaway(self, code: int) -> None:
        self._retired = self._retired or self.h2.role is Role.CLIENT
        self.engine.post(self._close_if_done)

    def on_window(self) -> None:
        self._resume_waiting()
        if self.on_room is not None:
            self.engine.post(self._tell_room)

    def _tell_room(self) -> None:
        if self.on_room is not None and (self.can_take() or not self.alive):
            self.on_room()

    # The pipe's ends.

    def received(self, untrusted: memoryview) -> None:
        if self._on_end is None:
            return
        self._received_at = self.engine.now
        h2, engine, standing = self.h2, self.engine, self.standing
        standing.enter(engine.number)
        try:
            if h2.receive(untrusted, engine.now) or standing.churn.level(engine.now) < -DEBT_POINTS:
                self._read_later()
        except PeerError as error:
            self.calmed = error.reply == Code.ENHANCE_YOUR_CALM
            self.ledger.calmed += self.calmed
            self._close(error.reply, HandshakeFailed(f"HTTP/2: {error} ({code_name(error.reply)})"))
        spent = h2.budget.spent
        if spent != self._glitches_told:
            self.ledger.glitches += spent - self._glitches_told
            self._glitches_told = spent

    def _read_later(self) -> None:
        """The peer sent more than is done for it in a round. The rest waits for the next one, or until its
        debt is paid."""
        if self._reads_later:
            return
        self._reads_later = True
        self.pipe.pause()
        wait = self.standing.churn.seconds_until(-DEBT_POINTS, self.engine.now)
        if wait:
            self.engine.after(wait, self._read_on)
        else:
            self.engine.next_round(self._read_on)

    def _read_on(self) -> None:
        self._reads_later = False
        try:
            self.received(_NOTHING)
        except BaseException as bug:  # the engine ends what raises in a descriptor's callback, not here
            self.broken(ConnectionFailed(f"internal error: {bug!r}"))
            raise
        if not self._reads_later:
            self.pipe.resume()

    def unblocked(self) -> None:
        self._resume_waiting()

    def deaf(self) -> None:
        self._close(Code.ENHANCE_YOUR_CALM, Unreachable("the peer does not read what is sent to it"))

    def broken(self, error: ConnectionFailed | None) -> None:
        if error is None and self.tunnels:
            error = Unreachable("the peer closed the session")
        self._end(error, linger=False)

    # What tunnels ask for.

    def left(self, tunnel: Stream) -> None:
        assert isinstance(tunnel, TunnelStream)
        self.tunnels.discard(tunnel)
        if self._on_request is not None:
            self._slowed.drop(tunnel)
        self.ledger.streams -= 1
        if self.on_room is not None:
            self.engine.post(self._tell_room)
        if not self.tunnels:
            self.idle_since = self.engine.now
            if self._retired:
                self.engine.post(self._close_if_done)

    def _add(self, tunnel: TunnelStream) -> None:
        self.tunnels.add(tunnel)
        self.idle_since = None
        self.ledger.streams += 1

    def _set_reads(self) -> None:
        """Peers that take large frames get one for each read; for others several reads make up for it."""
        self.read_bytes = min(self.pipe.bulk_bytes(), self.h2.frame_bytes)
        self.reads = max(1, MOST_BYTES // 2 // self.read_bytes)

    def _resume_waiting(self) -> None:
        for tunnel in list(self.waiting):
            tunnel.on_window()

    # Time.

    def _unsettled(self) -> None:
        self._close(Code.SETTINGS_TIMEOUT, HandshakeFailed("the peer sent no HTTP/2 settings in time"))

    def _ping(self) -> None:
        self._pinged = True
        self.push(push_ping(_PING))
        self._timer = self.engine.after(self.ledger.limits.pong_seconds, self._silent)

    def _silent(self) -> None:
        self._close(Code.NO_ERROR, Unreachable("the peer did not answer a ping in time"))

    # The end.

    def _close_if_done(self) -> None:
        if self._retired and not self.tunnels:
            self._close(Code.NO_ERROR, None)

    def _close(self, code: int, error: ConnectionFailed | None, at_once: bool = False) -> None:
        """Say goodbye, and close."""
        if self._on_end is not None:
            self.push(push_goaway(self.h2.refuse_streams(), code))
            self._end(error, linger=True, at_once=at_once)

    def _end(self, error: ConnectionFailed | None, linger: bool, at_once: bool = False) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is None:
            return
        self._timer.cancel()
        self.ledger.sessions -= 1
        self.pipe.close(self.ledger.limits.goodbye_seconds if linger else 0)
        if at_once:
            self.h2.streams.clear()
        else:
            self.h2.lose_streams(self.engine.now)
        if self.on_room is not None:
            self.engine.post(self._tell_room)
        lost = error or Unreachable("the session was closed")
        tunnels = list(self.tunnels)
        if at_once or len(tunnels) <= AT_ONCE:
            for tunnel in tunnels:
                tunnel.session_lost(lost)
            on_end(self, error)
            self.engine.post(self._release)
            return
        on_end(self, error)
        for tunnel in tunnels:
            self.engine.pieces.put(partial(tunnel.session_lost, lost))
        self.engine.pieces.put(self._release)

    def _release(self) -> None:
        """What it is made of holds it in turn: circles, which the garbage collector finds late, and with each
        50 KiB of TLS."""
        self._slowed.clear()
        self.pipe.release()
        self.h2.release()
