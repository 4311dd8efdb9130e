"""Carries bytes to a server that is not in the mesh, and back: a TCP connection that is a transport as a
tunnel is one.

What the receiver has not taken stops the reading at 64 KiB, so that it is the server's buffers that fill;
what the socket does not take is kept, and counts among the bytes that are held.
"""

from __future__ import annotations

import socket
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT

from ztunnel.errors import NOT_TAKEN, ConnectionFailed, Exhausted, Unreachable
from ztunnel.flow.buffer import Backlog
from ztunnel.flow.engine import Engine
from ztunnel.flow.held import Share
from ztunnel.flow.linger import close_with_reset
from ztunnel.flow.transport import HIGH_BYTES, Receiver


class PlainStream:
    """One connection. It owns its socket.

    Attributes:
        opened_at: monotonic seconds.
    """

    def __init__(self, engine: Engine, sock: socket.socket, share: Share) -> None:
        self._engine = engine
        self._sock = sock
        self._fd = sock.fileno()
        self._share = share
        self._receiver: Receiver | None = None
        self._backlog = Backlog()
        self._events = -1
        self._untaken = 0
        self._accounted = 0
        self._finishing = False
        self._local_ended = False
        self._remote_ended = False
        self._over = False
        self.opened_at = engine.now

    @property
    def unsent_bytes(self) -> int:
        """What was written and has not left."""
        return self._backlog.held_bytes

    @property
    def leaving(self) -> bool:
        """Nothing carries it."""
        return False

    @property
    def held_bytes(self) -> int:
        """For the share of held bytes."""
        return self._accounted

    def give_way(self) -> None:
        """Too much is held, most of it for this pod and peer."""
        self._lose(Exhausted(NOT_TAKEN))

    def attach(self, receiver: Receiver) -> None:
        """Read from now on."""
        self._receiver = receiver
        self._watch()

    def write(self, part: bytes | memoryview) -> None:
        """Send; what cannot leave now is copied and kept."""
        if self._over or self._finishing:
            return
        sent = 0
        if not self._backlog.held_bytes:
            try:
                sent = self._sock.send(part)
            except BlockingIOError:
                pass
            except OSError as error:
                self._break_later(error)
                return
        if sent < len(part):
            self._backlog.append(memoryview(part)[sent:])
            self._account()
            self._watch()

    def finish(self) -> None:
        """Nothing more will be written."""
        if not self._over and not self._finishing:
            self._finishing = True
            if not self._backlog.held_bytes:
                self._shut()

    def taken(self, count: int) -> None:
        """Bytes that were received have left our hands."""
        if not self._over:
            self._untaken -= count
            self._account()
            self._watch()

    def abort(self, error: ConnectionFailed) -> None:
        """End it now: the server gets a reset. The receiver hears no more."""
        if not self._over:
            self._receiver = None
            self._leave()
            close_with_reset(self._sock)

    # The socket's side.

    def _watch(self) -> None:
        """Wait for what there is something to be done about."""
        if self._over or self._receiver is None:
            return
        reads = not self._remote_ended and self._untaken < HIGH_BYTES
        events = (EPOLLIN if reads else 0) | (EPOLLOUT if self._backlog.held_bytes else 0)
        if events == self._events:
            return
        if self._events < 0:
            self._engine.watch(self._fd, events, self._ready, self._abandon)
        else:
            self._engine.rewatch(self._fd, events)
        self._events = events

    def _ready(self, mask: int) -> None:
        if mask & EPOLLOUT:
            self._flush()
        if self._over:
            return
        if mask & EPOLLIN and self._events & EPOLLIN:
            self._read()
        elif mask & EPOLLERR or (mask & EPOLLHUP and not self._events & EPOLLIN):
            self._lose(Unreachable("the connection broke"))

    def _read(self) -> None:
        inbox = self._engine.inbox.view
        try:
            count = self._sock.recv_into(inbox)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(Unreachable(f"the connection broke: {error}"))
            return
        receiver = self._receiver
        assert receiver is not None
        if count:
            self._untaken += count
            receiver.received(inbox[:count])
            self._account()
            self._watch()
            return
        self._remote_ended = True
        receiver.ended()
        self._watch()
        self._close_if_done()

    def _flush(self) -> None:
        backlog = self._backlog
        while backlog.held_bytes:
            try:
                with backlog.head() as head:
                    sent = self._sock.send(head)
            except BlockingIOError:
                break
            except OSError as error:
                self._break(error)
                return
            backlog.drop(sent)
        self._account()
        self._watch()
        if backlog.held_bytes:
            return
        if self._finishing:
            self._shut()
        elif self._receiver is not None:
            self._receiver.writable()

    def _shut(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._break_later(error)
            return
        self._local_ended = True
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._local_ended and self._remote_ended and not self._over:
            self._leave()
            self._sock.close()

    # The end.

    def _abandon(self, bug: BaseException) -> None:
        self._lose(ConnectionFailed(f"internal error: {bug!r}"))

    def _break_later(self, error: OSError) -> None:
        """Whoever writes is in the middle of something: the end comes after it."""
        self._engine.post(lambda: self._break(error))

    def _break(self, error: OSError) -> None:
        """The server takes nothing more. What it has said before is still there to read: its answer, perhaps,
        to a request of which it did not want the rest (envoyproxy/envoy#2929)."""
        inbox, receiver = self._engine.inbox.view, self._receiver
        while receiver is not None and not self._over:
            try:
                count = self._sock.recv_into(inbox)
            except OSError:
                break
            if not count:
                break
            self._untaken += count
            receiver.received(inbox[:count])
        self._lose(Unreachable(f"the connection broke: {error}"))

    def _lose(self, error: ConnectionFailed) -> None:
        if self._over:
            return
        receiver, self._receiver = self._receiver, None
        self._leave()
        close_with_reset(self._sock)
        if receiver is not None:
            receiver.lost(error)

    def _leave(self) -> None:
        self._over = True
        if self._events >= 0:
            self._engine.unwatch(self._fd)
        self._backlog.clear()
        self._account()

    def _account(self) -> None:
        held = 0 if self._over else self._backlog.held_bytes + max(self._untaken, 0)
        before, self._accounted = self._accounted, held
        if held > before:
            self._share.hold(self, held - before, self._engine)
        elif held < before:
            self._share.drop(self, before - held)
