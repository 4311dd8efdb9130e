"""Terminates tunnels in this process: the bytes within are for a receiver of ours, and not for a socket.

The payload of a DATA frame is given on as it was decrypted; what the receiver writes goes into the session's
block of this round, frame header and all. Only what cannot leave is copied, and counts among the bytes that
are held (`flow/held.py`).
"""

from __future__ import annotations

from typing import Final

from ztunnel.errors import NOT_TAKEN, ConnectionFailed, Exhausted, Unreachable
from ztunnel.flow.buffer import Backlog
from ztunnel.flow.flow import Counts
from ztunnel.flow.transport import Receiver
from ztunnel.hbone.hold import TunnelSession, TunnelStream
from ztunnel.hbone.join import GATHER_BYTES
from ztunnel.http2.budget import UPDATES_PER_FRAME
from ztunnel.http2.fields import Fields
from ztunnel.http2.frame import HEADER, HEADER_BYTES, Code, code_name

_PACK_INTO: Final = HEADER.pack_into


class InnerTunnel(TunnelStream):
    """A tunnel with a receiver at this end, which need not be there from the start: until then what comes is
    kept, within the stream's window.

    Attributes:
        counts: `up` is what the opener has sent.
    """

    __slots__ = (
        "_accounted",
        "_backlog",
        "_early",
        "_finishing",
        "_opener",
        "_over",
        "_receiver",
        "_session",
        "_untaken",
        "counts",
    )

    def __init__(self, session: TunnelSession, opener: bool) -> None:
        super().__init__()
        self._session = session
        self._opener = opener
        self._receiver: Receiver | None = None
        self._backlog = Backlog()
        self._early = Backlog()
        self._finishing = False
        self._over = False
        self._untaken = 0
        self._accounted = 0
        self.counts = Counts()

    # What the receiver does.

    @property
    def unsent_bytes(self) -> int:
        """What was written and has not left."""
        return self._backlog.held_bytes

    @property
    def leaving(self) -> bool:
        """Whether its session ends when all tunnels have."""
        return self._session.leaving

    @property
    def held_bytes(self) -> int:
        """What was received and is not taken, or was written and has not left."""
        return self._accounted

    def give_way(self) -> None:
        """Too much is held, most of it for this pod and peer."""
        receiver = self._receiver
        error = Exhausted(NOT_TAKEN)
        self.abort(error)
        if receiver is not None:
            receiver.lost(error)

    def attach(self, receiver: Receiver) -> None:
        """Give it what has come and what comes. Where the tunnel has ended meanwhile, it hears of that."""
        self._receiver = receiver
        early = self._early
        while early.held_bytes and not self._over:
            with early.head() as head:
                part = bytes(head)
            early.drop(len(part))
            receiver.received(memoryview(part))
        if self.remote_closed and not self._over:
            receiver.ended()

    def write(self, part: bytes | memoryview) -> None:
        """Send; what cannot leave now is copied and kept."""
        if self._over or self.local_closed or self._finishing:
            return
        view = memoryview(part)
        sent = 0 if self._backlog.held_bytes else self._send(view)
        if sent < len(view):
            self._backlog.append(view[sent:])
            self._session.waiting.add(self)
            self._account()

    def finish(self) -> None:
        """Nothing more will be written."""
        if self._over or self._finishing:
            return
        self._finishing = True
        if not self._backlog.held_bytes:
            self._finish()

    def taken(self, count: int) -> None:
        """Bytes that were received have left our hands."""
        if not self._over:
            self._untaken -= count
            self._session.h2.take(self, count)
            self._account()

    def abort(self, error: ConnectionFailed) -> None:
        """End it now: the peer gets RST_STREAM(CANCEL). The receiver hears no more."""
        if not self._over:
            self._receiver = None
            self._session.h2.reset(self, Code.CANCEL)
            self._leave()

    # What the peer does.

    def on_data(self, payload: memoryview) -> None:
        count = len(payload)
        self._untaken += count
        if self._opener:
            self.counts.down += count
        else:
            self.counts.up += count
        if self._receiver is not None:
            self._receiver.received(payload)
        else:
            self._early.append(payload)
        self._account()

    def on_end(self) -> None:
        if self._receiver is not None:
            self._receiver.ended()
        if self.closed:
            self._leave()

    def on_reset(self, code: int) -> None:
        failed = code not in (Code.NO_ERROR, Code.CANCEL)
        self._lost(Unreachable(f"the peer reset the tunnel: {code_name(code)}") if failed else None)

    def session_lost(self, error: ConnectionFailed) -> None:
        """The session died under the tunnel."""
        self.closed = True
        self._lost(error)

    def on_window(self) -> None:
        """It may be possible to send again."""
        self._session.waiting.discard(self)
        backlog = self._backlog
        if self._over or not backlog.held_bytes:
            return
        while backlog.held_bytes:
            with backlog.head() as head:
                sent = self._send(head)
                whole = sent == len(head)
            backlog.drop(sent)
            if not whole:
                self._session.waiting.add(self)
                break
        self._account()
        if backlog.held_bytes:
            return
        if self._finishing:
            self._finish()
        elif self._receiver is not None:
            self._receiver.writable()

    # Sending.

    def _send(self, view: memoryview) -> int:
        """Put into frames what windows and socket take now. Returns how much that is."""
        session = self._session
        h2, pipe = session.h2, session.pipe
        done, size = 0, len(view)
        while done < size and pipe.open and not pipe.blocked:
            block = pipe.block or pipe.take_block()
            if block.at > GATHER_BYTES:
                pipe.write_out()
                continue
            at, start, known = block.at, block.at + HEADER_BYTES, 0
            if block.frame_end == at and block.frame_stream == self.stream_id:
                # What was written before in this round is the last that is there: one frame for all of it.
                known = at - block.frame_at - HEADER_BYTES
                if known < session.read_bytes:
                    at, start = block.frame_at, block.at
                else:
                    known = 0
            count = _least(size - done, session.read_bytes - known, self.send_window, h2.send_window)
            if count <= 0:
                break
            block.view[start : start + count] = view[done : done + count]
            _PACK_INTO(block.memory, at, known + count << 8, 0, self.stream_id)
            block.at = block.frame_end = start + count
            if not known:
                block.frame_at, block.frame_stream = at, self.stream_id
                h2.budget.updates += UPDATES_PER_FRAME
            self.send_window -= count
            h2.send_window -= count
            done += count
        if self._opener:
            self.counts.up += done
        else:
            self.counts.down += done
        return done

    def _finish(self) -> None:
        self._session.h2.finish(self)
        if self.closed:
            self._leave()

    # The end.

    def _lost(self, error: ConnectionFailed | None) -> None:
        if self._over:
            return
        receiver, self._receiver = self._receiver, None
        self._leave()
        if receiver is not None:
            receiver.lost(error)

    def _leave(self) -> None:
        if self._over:
            return
        self._over = True
        session = self._session
        session.waiting.discard(self)
        self._backlog.clear()
        self._early.clear()
        untaken, self._untaken = self._untaken, 0
        if untaken:
            session.h2.take(self, untaken)
        self._account()
        session.left(self)

    def _account(self) -> None:
        """Tell what is held, where that has changed: most bytes are taken before anybody could ask."""
        held = 0 if self._over else self._backlog.held_bytes + max(self._untaken, 0)
        before, self._accounted = self._accounted, held
        if held > before:
            self._session.share.hold(self, held - before, self._session.engine)
        elif held < before:
            self._session.share.drop(self, before - held)


def _least(size: int, frame: int, stream: int, session: int) -> int:
    """Not `min`, which is given objects: small writes feel it."""
    if frame < size:
        size = frame
    if stream < size:
        size = stream
    return session if session < size else size


class TerminatedTunnel(InnerTunnel):
    """A tunnel that the peer asks for, until it is accepted or refused.

    Attributes:
        headers: the request's fields, not checked yet.
    """

    __slots__ = ("headers",)

    def __init__(self, session: TunnelSession, untrusted: Fields) -> None:
        super().__init__(session, opener=False)
        self.headers = untrusted

    def accept(self, block: bytes, receiver: Receiver) -> None:
        """Answer with an encoded header block (the 200 included); `receiver` has the bytes from now on."""
        if self._over:
            receiver.lost(None)
            return
        self._session.h2.answer(self, block)
        self.attach(receiver)

    def refuse(self, block: bytes) -> None:
        """Answer with an encoded header block (a status that is not 200) and end the stream."""
        if self._over:
            return
        h2 = self._session.h2
        h2.standing.churn.take(1, h2.now)
        h2.answer(self, block, end=True)
        h2.reset(self, Code.NO_ERROR)
        self._leave()
