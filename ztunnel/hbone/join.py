"""Joins an application's socket to one stream of a session: the data path of a tunnel.

Bytes from the application are read straight behind the gap for a frame header in the session's block of
this round. Bytes from the peer go to the application's socket from the buffer that they were decrypted
into; what it does not take is copied to a backlog, and only bytes that it took are reported for flow
control, so that a slow reader stops the sender at the other end of the mesh.

```
client:  waiting ── 200 ──> joined            server:  asked ── accept ──> joined
            │ other status: refused                       │ refuse / reset by the peer: over
            │ anything else: lost
joined:  app FIN -> END_STREAM    END_STREAM -> shutdown(SHUT_WR)    both -> over
         app reset -> what it had sent, then RST_STREAM(CANCEL)
         RST_STREAM, session lost -> the app gets what came, then an end; a reset where bytes may be missing
```
"""

from __future__ import annotations

import socket
from functools import partial
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from typing import Final

from ztunnel.errors import NOT_TAKEN, ConnectionFailed, Exhausted, Unreachable
from ztunnel.flow.buffer import Backlog
from ztunnel.flow.flow import Counts
from ztunnel.flow.linger import close_with_reset, reset_when_sent
from ztunnel.hbone.hold import TunnelSession
from ztunnel.hbone.watch import ApplicationEnd
from ztunnel.http2.budget import UPDATES_PER_FRAME
from ztunnel.http2.frame import END_STREAM, FLAGS_AT, HEADER, HEADER_BYTES, Code, code_name

GATHER_BYTES: Final = 60_000
"""A block is written out before the next read once it holds this much: the rest has room for one read of
bulk."""

READ: Final = EPOLLIN | EPOLLRDHUP
"""What is waited for while the application is read: its bytes, and whether it has shut its side."""

# Compiled code looks the names of another module up, each time.
_IN: Final = EPOLLIN
_OUT: Final = EPOLLOUT
_RDHUP: Final = EPOLLRDHUP
_ERR: Final = EPOLLERR
_HUP: Final = EPOLLHUP
_MORE: Final = int(socket.MSG_MORE)
_PACK_INTO: Final = HEADER.pack_into


class Tunnel(ApplicationEnd):
    """One tunnel. The application's socket belongs to it from the start until it has ended, or is handed
    back."""

    __slots__ = (
        "_backlog",
        "_broken",
        "_counts",
        "_last_words",
        "_opener",
        "_over",
        "_pipe",
        "_reading",
        "_recv_into",
        "_send",
    )

    def __init__(self, session: TunnelSession, opener: bool) -> None:
        super().__init__(session)
        self._pipe = session.pipe
        self._opener = opener
        self._reading = False
        self._over = False
        # The application was reset, and is only read any more.
        self._broken = False
        self._backlog = Backlog()
        self._counts = Counts()
        # What to do when the backlog is empty: the error to report, and whether the application gets a reset.
        self._last_words: tuple[ConnectionFailed | None, bool] | None = None

    def abort(self, error: ConnectionFailed) -> None:
        """End now: the peer gets RST_STREAM(CANCEL), the application a reset. Nothing if it has ended
        already."""
        if not self._over:
            self._session.h2.reset(self, Code.CANCEL)
            self._end(error, reset=True)

    @property
    def held_bytes(self) -> int:
        """What its application has not taken."""
        return self._backlog.held_bytes

    def give_way(self) -> None:
        """Too much is held, most of it for this pod and peer."""
        self.abort(Exhausted(NOT_TAKEN))

    # The application's side.

    def _join(self, app: socket.socket, counts: Counts) -> None:
        self._app = app
        self._fd = app.fileno()
        self._recv_into = app.recv_into
        self._send = app.send
        self._counts = counts
        self._watch_afterwards()

    def _watch_afterwards(self) -> None:
        """Wait for the application by what is to be done then; what this round has to send goes first."""
        self._session.engine.afterwards(self._watch_now)

    def _watch_now(self) -> None:
        if self._over:
            return
        read = READ if self._reading and self not in self._session.waiting else 0
        try:
            self._watch(read | (_OUT if self._backlog.held_bytes else 0))
        except OSError as error:
            self.abort(Unreachable(f"the connection cannot be carried: {error}"))

    def _abandon(self, bug: BaseException) -> None:
        self.abort(ConnectionFailed(f"internal error: {bug!r}"))

    def _ready(self, mask: int) -> None:
        if mask == _IN and self._events & _IN:
            self._read()
            return
        if mask & _OUT:
            self._flush()
        if self._over or not mask & ~_OUT:
            return
        if self._events & _IN:
            self._read(mask & _RDHUP != 0)
        elif mask & _ERR and not self._reading:
            self._app_gone()
        elif mask & (_ERR | _HUP):
            # It is over, and it is not the time to read what is left: EPOLLHUP would not stop coming.
            if mask & _ERR:
                self._break()
            self._unwatch()

    def _read(self, shut: bool = False) -> None:
        """Read from the application into the session's block: DATA frames, header and all, without a copy.
        Where it has shut its side (`shut`), its end is read at once as well: the frame of its last bytes
        says so, and the peer is woken up once."""
        session, pipe = self._session, self._pipe
        h2 = session.h2
        for _ in range(session.reads + 1 if shut else session.reads):
            block = pipe.block or pipe.take_block()
            if block.at > GATHER_BYTES:
                pipe.write_out()
            limit = session.read_bytes
            if self.send_window < limit:
                limit = self.send_window
            if h2.send_window < limit:
                limit = h2.send_window
            if limit <= 0 or pipe.blocked:
                self._pause()
                return
            at = block.at
            start = at + HEADER_BYTES
            try:
                count = self._recv_into(block.view[start : start + limit])
            except OSError as error:
                self._read_failed(error)
                return
            if not count:
                self._app_ended()
                return
            _PACK_INTO(block.memory, at, count << 8, 0, self.stream_id)
            block.frame_at = at
            block.frame_stream = self.stream_id
            block.at = block.frame_end = start + count
            self.send_window -= count
            h2.send_window -= count
            h2.budget.updates += UPDATES_PER_FRAME
            if self._opener:
                self._counts.up += count
            else:
                self._counts.down += count
            if count < limit and not shut:
                return

    def _read_failed(self, error: OSError) -> None:
        if not isinstance(error, BlockingIOError):
            self._app_gone()

    def _pause(self) -> None:
        """Nothing can be sent: leave the bytes where they are, so that the application's writes stall."""
        self._watch_less(READ)
        self._session.waiting.add(self)

    def on_window(self) -> None:
        """It may be possible to send again."""
        self._session.waiting.discard(self)
        if self._reading:
            self._watch_now()

    def _app_ended(self) -> None:
        if self._broken:
            self._app_gone()
            return
        self._reading = False
        self._finish()
        if self.remote_closed and not self._backlog.held_bytes:
            self._end_in_order()
        elif self._app is not None:
            self._watch_less(READ)
            self._session.engine.half_closed.add(self._app)

    def _finish(self) -> None:
        """The application has sent its last. Where the frame of that has not left, and nothing stands behind
        it, it says so; else one that is empty."""
        block = self._pipe.block
        if block is None or block.frame_end != block.at or block.frame_stream != self.stream_id:
            self._session.h2.finish(self)
            return
        block.memory[block.frame_at + FLAGS_AT] |= END_STREAM
        self._session.h2.finished(self)

    def _app_gone(self) -> None:
        """The application's side is reset. For the log that is an end like any other (as in Istio's
        ztunnel)."""
        self._session.h2.reset(self, Code.CANCEL)
        words = self._last_words
        self._end(words[0] if words else None, reset=True)

    def _lose_app(self) -> None:
        """The application was reset and takes nothing more. What it had sent before is read to its end."""
        if not self._reading:
            self._app_gone()
            return
        self._break()
        self._drop_backlog()
        self._watch_less(_OUT)
        if self not in self._session.waiting:
            self._watch_more(READ)

    def _break(self) -> None:
        self._broken = True
        self._session.engine.last_words.watch(self._app, self._counts.moved, self._app_gone)

    # The peer's side.

    def on_data(self, payload: memoryview) -> None:
        count = len(payload)
        sent = 0
        if self._broken:
            self._session.h2.take(self, count)
            return
        if not self._backlog.held_bytes and self._app is not None:
            try:
                # The end that follows leaves with these bytes, in one segment.
                shuts = self.ending and not self.local_closed
                sent = self._send(payload, _MORE) if shuts else self._send(payload)
            except BlockingIOError:
                pass
            except OSError:
                self._session.h2.take(self, count)
                self._lose_app()
                return
            self._took(sent)
            if sent == count:
                return
            self._watch_more(_OUT)
        self._backlog.append(payload[sent:])
        self._session.share.hold(self, count - sent, self._session.engine)

    def _took(self, count: int) -> None:
        """The application's socket took bytes of the peer's."""
        if self._opener:
            self._counts.down += count
        else:
            self._counts.up += count
        self._session.h2.take(self, count)

    def _flush(self) -> None:
        """The application's socket takes bytes again."""
        backlog = self._backlog
        while backlog.held_bytes:
            try:
                with backlog.head() as head:
                    sent = self._send(head)
            except BlockingIOError:
                return
            except OSError:
                self._lose_app()
                return
            backlog.drop(sent)
            self._session.share.drop(self, sent)
            self._took(sent)
        self._watch_less(_OUT)
        if self._last_words is not None:
            self._end_when_sent(*self._last_words)
        elif self.remote_closed:
            self._shut()

    def on_end(self) -> None:
        if self._app is not None and not self._backlog.held_bytes:
            self._shut()

    def _shut(self) -> None:
        """The application has all that the peer sent."""
        if self.local_closed:
            self._end_in_order()
            return
        assert self._app is not None
        self._session.engine.time_wait.shuts(self._app)
        try:
            self._app.shutdown(socket.SHUT_WR)
        except OSError:
            self._lose_app()

    def on_reset(self, code: int) -> None:
        """The stream is over. NO_ERROR and CANCEL are no failure (as in Istio's ztunnel); the application
        gets a reset, also behind the peer's last byte: who has shut its side may be reset later."""
        failed = code not in (Code.NO_ERROR, Code.CANCEL)
        error = Unreachable(f"the peer reset the tunnel: {code_name(code)}") if failed else None
        self._end_after_backlog(error, reset=code != Code.NO_ERROR)

    def session_lost(self, error: ConnectionFailed) -> None:
        """The session died under the tunnel. What the peer had sent is still delivered."""
        done = self.local_closed and self.remote_closed
        self.closed = True
        self._end_after_backlog(None if done else error, reset=not done)

    # The end.

    def _end_after_backlog(self, error: ConnectionFailed | None, reset: bool) -> None:
        if self._over:
            return
        if not self._backlog.held_bytes and self._app is not None:
            self._end_when_sent(error, reset)
            return
        self._reading = False
        self._last_words = (error, reset)
        if self._app is not None:
            self._watch(_OUT)
        self._session.engine.last_words.watch(self._app, self._counts.moved, self._app_gone)

    def _leave(self, closing: bool = False) -> socket.socket | None:
        """Leave the session, and let go of the socket; with `closing`, the caller closes it before the next
        round."""
        self._over = True
        session = self._session
        session.waiting.discard(self)
        self._drop_backlog()
        if closing:
            self._forget()
        self._unwatch()
        app, self._app = self._app, None
        session.engine.let_go(app)
        session.left(self)
        return app

    def _drop_backlog(self) -> None:
        lost = self._backlog.clear()
        if lost:
            self._session.share.drop(self, lost)
            self._session.h2.take(self, lost)

    def _end_in_order(self) -> None:
        """Both ways have ended. What this round has to send goes first: nobody waits for the rest."""
        if not self._over:
            self._session.engine.time_wait.ended(self._app)
            app = self._leave(closing=True)
            self._session.engine.afterwards(partial(self._close, app, None, False))

    def _end(self, error: ConnectionFailed | None, reset: bool) -> None:
        if not self._over:
            self._close(self._leave(closing=True), error, reset)

    def _end_when_sent(self, error: ConnectionFailed | None, reset: bool) -> None:
        """As `_end`; a reset does not overtake what the application has still to get."""
        if not reset:
            self._end(error, reset=False)
        elif not self._over:
            app = self._leave()
            if app is not None:
                reset_when_sent(self._session.engine, app)
            self._ended(error)

    def _close(self, app: socket.socket | None, error: ConnectionFailed | None, reset: bool) -> None:
        if app is not None:
            if reset:
                close_with_reset(app)
            else:
                app.close()
        self._ended(error)

    def _ended(self, error: ConnectionFailed | None) -> None:
        """Tell whoever asked for the tunnel."""
