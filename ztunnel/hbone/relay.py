"""Relays frames through one TLS connection: gathered by the round on the way out, decrypted side by side on
the way in.

A round costs one `recv`, one decryption per TLS record, a TLS write for each slice of 64 KiB and one `send`,
however many tunnels took part:

```
socket readable: recv -> engine.inbox -> TLS -> engine.plain -> Ends.received
round:           DATA frames are read into `block` in place, `push` adds others
round end:       block -> TLS -> one send; what the socket does not take is kept, and the pipe is `blocked`
                 until it is gone: frames pushed meanwhile wait within a limit
```
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import Any, Final, Protocol

from ztunnel.errors import ConnectionFailed, Unreachable
from ztunnel.flow.buffer import Block
from ztunnel.flow.engine import Engine
from ztunnel.hbone.bulk import MOST_BYTES, bulk_bytes
from ztunnel.hbone.linger import Lingering
from ztunnel.hbone.link import TlsLink

_LAST_RECORD_BYTES: Final = 17 * 1024

# Compiled code looks the names of another module up, each time.
_IN: Final = EPOLLIN
_OUT: Final = EPOLLOUT
_GONE: Final = EPOLLERR | EPOLLHUP

SLICE_BYTES: Final = 64 * 1024
"""OpenSSL's memories grow to what passes through them at once, and never shrink: they get bulk in slices."""


class Ends(Protocol):
    """Whose pipe it is."""

    def received(self, untrusted: memoryview) -> None:
        """Bytes from the peer; the view is void after the call."""

    def unblocked(self) -> None:
        """The socket takes bytes again."""

    def deaf(self) -> None:
        """The peer reads so little that more frames wait for it than the limit allows."""

    def broken(self, error: ConnectionFailed | None) -> None:
        """The connection is gone; None where the peer closed it. The pipe still has to be closed."""


class _Nobody:
    """Takes their place when the pipe is closed: a callback may still be on its way."""

    def received(self, untrusted: memoryview) -> None:
        """Nothing follows."""

    def unblocked(self) -> None:
        """Nothing follows."""

    def deaf(self) -> None:
        """Nothing follows."""

    def broken(self, error: ConnectionFailed | None) -> None:
        """Nothing follows."""


_RETRANSMITS: Final = 2
"""`tcpi_retransmits`: the second time comes some 0.6 s after the first sending."""


class Pipe:
    """One TLS connection. Owns the link's socket until `close`.

    Attributes:
        engine: whose thread this is.
        block: where frames of this round are gathered; None until there are some (`take_block`).
        blocked: the socket does not take what was sent.
    """

    __slots__ = (
        "_control",
        "_control_limit",
        "_ends",
        "_fd",
        "_incoming",
        "_outgoing",
        "_paused",
        "_pending",
        "_read_into",
        "_sock",
        "_tls",
        "_unsent",
        "_write",
        "block",
        "blocked",
        "engine",
        "open",
    )

    def __init__(self, engine: Engine, link: TlsLink, ends: Ends, control_limit_bytes: int) -> None:
        self.engine = engine
        self.block: Block | None = None
        self.blocked = False
        self.open = True
        self._ends = ends
        self._sock = link.sock
        self._fd = link.sock.fileno()
        self._tls = link.tls
        # The object within has the same methods, without a Python frame around each: small messages feel it.
        # With a buffer, `read` returns how many bytes it put there; typeshed does not know.
        tls: Any = getattr(link.tls, "_sslobj", link.tls)
        self._read_into: Callable[[int, memoryview], int] = tls.read
        self._write: Callable[[memoryview], int] = tls.write
        self._pending: Callable[[], int] = tls.pending
        self._incoming = link.incoming
        self._outgoing = link.outgoing
        self._unsent: memoryview | None = None
        self._paused = False
        self._control = bytearray()
        self._control_limit = control_limit_bytes

    def start(self) -> None:
        """Begin; bytes that came behind the handshake are looked at in this round."""
        self.engine.watch(self._fd, _IN, self._ready, self._abandon)
        if self._incoming.pending or self._pending():
            self.engine.post(self._catch_up)

    def stalls(self) -> bool:
        """Whether what was sent is not acknowledged, and was sent again in vain; 2 us."""
        try:
            return self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 3)[2] >= _RETRANSMITS
        except OSError:
            return False

    def bulk_bytes(self) -> int:
        """How many bytes of one DATA frame leave in whole pieces, as the connection's path is now; 2 us."""
        try:
            return bulk_bytes(self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
        except OSError:  # it is gone already
            return MOST_BYTES

    def close(self, linger_seconds: float) -> None:
        """Let go of the connection: with a TLS goodbye and time for the peer to read it, or at once with
        0."""
        if not self.open:
            return
        if linger_seconds:
            self.write_out()
            # It wants to wait for the peer's goodbye, and we do not; ours is written.
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._send()
        lingers = linger_seconds > 0 and not self.blocked
        self.open, self.blocked = False, True  # tunnels that do not know yet read nothing for it
        self.engine.unwatch(self._fd)
        if lingers:
            Lingering(self.engine, self._sock, linger_seconds)
        else:
            self._sock.close()

    def release(self) -> None:
        """It is closed: let go of whose pipe it was."""
        self._ends = _Nobody()

    def pause(self) -> None:
        """Read nothing more: the peer's bytes stay in the socket, and soon in the peer."""
        if self.open and not self._paused:
            self._paused = True
            self._rewatch()

    def resume(self) -> None:
        """Read again."""
        if self.open and self._paused:
            self._paused = False
            self._rewatch()

    def _rewatch(self) -> None:
        events = 0 if self._paused else _IN
        self.engine.rewatch(self._fd, events | _OUT if self.blocked else events)

    # Sending.

    def take_block(self) -> Block:
        """The block of this round; it is written out at the round's end."""
        block = self.block = self.engine.blocks.take()
        self.engine.at_round_end(self._round_end)
        return block

    def push(self, frames: bytes) -> None:
        """Send frames, after everything before them. Nothing happens once the pipe is closed."""
        if self.blocked or not self.open:
            if self.open:
                self._wait(frames)
            return
        block = self.block or self.take_block()
        at = block.at
        after = at + len(frames)
        if after > len(block.memory):
            self.write_out()
            self.push(frames)
            return
        block.memory[at:after] = frames
        block.at = after

    def write_out(self) -> None:
        """Encrypt what the block holds, and send it."""
        block = self.block
        if block is None or not block.at or not self.open:
            return
        view, block.at, block.frame_end = block.view[: block.at], 0, -1
        try:
            if len(view) <= SLICE_BYTES:
                self._encrypt(view)
                self._send()
            else:
                self._send_slices(view)
        except ssl.SSLError as error:
            self._break(f"TLS: {error}")

    def _send_slices(self, view: memoryview) -> None:
        """Bulk leaves in one piece: what each system call costs, and each time that the peer is woken up, is
        felt."""
        ciphers = []
        for start in range(0, len(view), SLICE_BYTES):
            self._encrypt(view[start : start + SLICE_BYTES])
            if not self.blocked:
                ciphers.append(self._outgoing.read())
        if not ciphers:
            return
        sent = self._give(self._sock.sendmsg, ciphers)
        if 0 <= sent < sum(map(len, ciphers)):
            self._block(memoryview(b"".join(ciphers))[sent:])

    def _encrypt(self, view: memoryview) -> None:
        write = self._write
        done = write(view)
        while done < len(view):
            done += write(view[done:])

    def _round_end(self) -> None:
        try:
            self.write_out()
        finally:
            block, self.block = self.block, None
            if block is not None:
                self.engine.blocks.give(block)

    def _wait(self, frames: bytes) -> None:
        """Frames that have to wait for the socket; a peer that never reads must not make us hold many."""
        self._control += frames
        if len(self._control) > self._control_limit:
            self._control.clear()
            self.engine.post(self._ends.deaf)

    def _send(self) -> None:
        """Send the ciphertext that there is, unless some is waiting already."""
        if self.blocked:
            return
        cipher = self._outgoing.read()
        if not cipher:
            return
        sent = self._give(self._sock.send, cipher)
        if 0 <= sent < len(cipher):
            self._block(memoryview(cipher)[sent:])

    def _give(self, send: Callable[[Any], int], cipher: object) -> int:
        """How many bytes the socket takes; -1: none any more, and whoever has the pipe will hear of it."""
        try:
            return send(cipher)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._break(str(error))
            return -1

    def _block(self, unsent: memoryview) -> None:
        """The socket takes no more for now."""
        self._unsent = unsent
        self.blocked = True
        self._rewatch()

    def _writable(self) -> None:
        unsent = self._unsent
        if unsent is not None:
            sent = self._give(self._sock.send, unsent)
            if sent < 0:
                return
            if sent < len(unsent):
                self._unsent = unsent[sent:]
                return
        self._unsent = None
        self.blocked = False
        self._send()
        if self.blocked:
            return
        self._rewatch()
        if self._control:
            control, self._control = self._control, bytearray()
            self.push(bytes(control))
        self._ends.unblocked()

    # Receiving.

    def _ready(self, mask: int) -> None:
        if mask & _OUT:
            self._writable()
        if not mask & ~_OUT or not self.open:
            return
        if self._paused:
            if mask & _GONE:  # which would not stop to be reported
                self._ends.broken(None)
            return
        inbox = self.engine.inbox.view
        try:
            count = self._sock.recv_into(inbox)
        except BlockingIOError:
            return
        except OSError as error:
            self._ends.broken(Unreachable(f"the session was cut: {error}"))
            return
        if not count:
            self._ends.broken(None)
            return
        at = 0
        for start in range(0, count, SLICE_BYTES):
            end = min(start + SLICE_BYTES, count)
            self._incoming.write(inbox[start:end])
            at = self._decrypt(at)
        self._pass_on(at)

    def _catch_up(self) -> None:
        """What came behind the handshake."""
        self._pass_on(self._decrypt(0))

    def _decrypt(self, at: int) -> int:
        """Decrypt what has come to `engine.plain`, several records side by side, behind the `at` bytes there.
        Returns where they end. Only what does not fit is passed on before all of it is there: an application
        is woken up once for what it gets in one piece."""
        plain = self.engine.plain.view
        room = len(plain)
        read, pending, incoming = self._read_into, self._pending, self._incoming
        try:
            while self.open:
                if room - at < _LAST_RECORD_BYTES:
                    self._ends.received(plain[:at])
                    at = 0
                    continue
                count = read(room - at, plain[at:])
                if not count:
                    self._pass_on(at)
                    self._ends.broken(None)
                    return 0
                at += count
                # Asking spares an exception for each message; bulk has one for each slice.
                if not incoming.pending and not pending():
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._pass_on(at)
            self._ends.broken(Unreachable(f"the session was cut: TLS: {error.reason or error}"))
            return 0
        return at

    def _pass_on(self, count: int) -> None:
        """So many bytes were decrypted."""
        if count:
            self._ends.received(self.engine.plain.view[:count])
        if self._outgoing.pending:
            self._send()

    def _break(self, why: str) -> None:
        """Sending failed. Whoever sent is in the middle of something, so the end comes after it."""
        cut = Unreachable(f"the session was cut: {why}")
        self.engine.post(lambda: self._ends.broken(cut))

    def _abandon(self, bug: BaseException) -> None:
        self._ends.broken(ConnectionFailed(f"internal error: {bug!r}"))
