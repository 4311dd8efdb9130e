"""Drives a session over a Trio stream, for both roles: reads, writes, asks a silent peer if it is there."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from ztunnel.drain import closing
from ztunnel.errors import PeerError
from ztunnel.http2.frame import Code as H2Code
from ztunnel.rpc.limits import Limits
from ztunnel.rpc.session import Session
from ztunnel.rpc.status import Code, PeerLeft, RpcError

_WRITE_BYTES: Final = 256 << 10
_MOST_BACKLOG: Final = 64 << 10
"""Answers to control frames that may wait before the peer is read no further."""

_GOODBYE_SECONDS: Final = 1.0


class Driver:
    """One connection and its session. `run` owns the stream, and closes it.

    Attributes:
        over: why the connection has ended; empty while it lives.
    """

    def __init__(self, stream: trio.abc.Stream, session: Session, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._kicked = trio.Event()
        self._written = trio.Event()
        self._heard = -math.inf
        self._pieces = 0
        self._leaves = False
        self.session = session
        self.over = ""

    def kick(self) -> None:
        """The session has something to write, perhaps."""
        self._kicked.set()

    def finish(self) -> None:
        """End the connection as soon as its streams have ended and all is written."""
        self._leaves = True
        self.kick()

    async def run(self, received: Callable[[], Awaitable[None]]) -> None:
        """Until the connection ends, or is cancelled; then every call on it fails with UNAVAILABLE.

        Args:
            received: called after each piece of input, when the session has taken it.
        """
        self._heard = trio.current_time()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, nursery.cancel_scope)
                nursery.start_soon(self._ask, nursery.cancel_scope)
                await self._read(received)
                nursery.cancel_scope.cancel()
            if not self._leaves:
                await self._say_goodbye()
        finally:
            self.over = self.over or "the connection was closed"
            self.session.fail(self._error())
            with closing(_GOODBYE_SECONDS):
                await self._stream.aclose()

    def _error(self) -> RpcError:
        """Of calls that end with the connection."""
        left = self.session.leaving
        planned = left is not None and left.code == H2Code.NO_ERROR
        return PeerLeft(self.over) if planned else RpcError(Code.UNAVAILABLE, self.over)

    async def _read(self, received: Callable[[], Awaitable[None]]) -> None:
        session = self.session
        while True:
            while session.backlog > _MOST_BACKLOG:
                self.kick()
                await self._written.wait()
            try:
                octets = await self._stream.receive_some(self._limits.read_bytes)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self.over = f"the connection broke: {error.__cause__ or error}"
                return
            if not octets:
                left = session.leaving
                self.over = f"the peer has left ({left})" if left else "the peer closed the connection"
                return
            self._heard = trio.current_time()
            self._pieces += 1
            try:
                session.receive(bytes(octets), self._heard)
            except PeerError as error:
                self.over = str(error)
                return
            await received()
            self.kick()

    async def _write(self, scope: trio.CancelScope) -> None:
        while True:
            self._kicked, self._written = trio.Event(), trio.Event()
            octets = self.session.pull(_WRITE_BYTES)
            if octets:
                if not await self._send(octets):
                    break
                self._written.set()
            elif self._leaves and not self.session.streams:
                self.over = "the connection was ended"
                break
            else:
                self._written.set()
                await self._kicked.wait()
        scope.cancel()

    async def _send(self, octets: bytes) -> bool:
        with trio.move_on_after(self._limits.write_seconds) as scope:
            try:
                await self._stream.send_all(octets)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self.over = f"the connection broke: {error.__cause__ or error}"
                return False
        if scope.cancelled_caught:
            self.over = f"the peer took nothing for {self._limits.write_seconds:.0f} s"
        return not scope.cancelled_caught

    async def _ask(self, scope: trio.CancelScope) -> None:
        """A peer that has vanished is noticed (gRPC's keepalive)."""
        ask, answer = self._limits.ping_seconds, self._limits.pong_seconds
        while True:
            await trio.sleep_until(self._heard + ask)
            if self._heard + ask > trio.current_time():
                continue
            before = self._pieces
            self.session.ping()
            self.kick()
            await trio.sleep(answer)
            if self._pieces == before:
                self.over = f"the peer did not answer a ping within {answer:.0f} s"
                scope.cancel()
                return

    async def _say_goodbye(self) -> None:
        """Tell the peer why, if there is anything to tell."""
        with closing(_GOODBYE_SECONDS):
            try:
                await self._stream.send_all(self.session.pull(_WRITE_BYTES))
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                return
