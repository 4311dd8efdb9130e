"""A client's calls: a channel is one connection to a server, with any number of calls on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Final

import trio

from ztunnel import __version__
from ztunnel.drain import closing
from ztunnel.flow.rate import Bucket, Rate
from ztunnel.http2.frame import Code as H2Code
from ztunnel.rpc import fields
from ztunnel.rpc.connect import Context, connect
from ztunnel.rpc.drive import Driver
from ztunnel.rpc.group import ungrouped
from ztunnel.rpc.limits import CLIENT, Limits
from ztunnel.rpc.session import Session
from ztunnel.rpc.status import Code, RpcError
from ztunnel.rpc.stream import Stream

_AGENT: Final = f"ztunnel-python/{__version__}"
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_GOODBYE_SECONDS: Final = 0.2
_POINTS: Final = Rate(100_000, 1000, 0)
"""A server is trusted more than a peer of the mesh: what it sends is bounded for each connection alone."""


class Call:
    """One call. For one task that sends and one that receives; they may be the same."""

    def __init__(self, driver: Driver, stream: Stream) -> None:
        self._driver = driver
        self._stream = stream
        self._waiting = trio.lowlevel.ParkingLot()
        self._metadata: Mapping[str, str] | None = None
        self._failure: RpcError | None = None
        stream.changed = self._wake

    async def send(self, message: bytes) -> None:
        """Send a message; returns when the peer's window has taken it.

        Raises:
            RpcError: the call is over, and how it ended.
        """
        await trio.lowlevel.checkpoint()
        stream = self._stream
        if stream.finish is not None:
            raise trio.ClosedResourceError("this call sends no more")
        if not self._gone:
            stream.put(message)
            self._driver.kick()
            while stream.outgoing and not self._gone:
                await self._waiting.park()
        if self._gone:
            raise self._end() or RpcError(Code.CANCELLED, "the server has ended the call")

    async def send_last(self, message: bytes) -> None:
        """Send a message, and no more of them; returns at once. A server may answer before it has taken all
        of it, and that is no failure."""
        await trio.lowlevel.checkpoint()
        stream = self._stream
        if stream.finish is not None:
            raise trio.ClosedResourceError("this call sends no more")
        if not self._gone:
            stream.put(message)
            stream.finish = []
            self._driver.kick()

    async def end(self) -> None:
        """Send no more messages."""
        await trio.lowlevel.checkpoint()
        if self._stream.finish is None:
            self._stream.finish = []
            self._driver.kick()

    async def receive(self) -> bytes | None:
        """The next message; None when the call has ended as it should.

        Raises:
            RpcError: how the call ended else.
        """
        await trio.lowlevel.checkpoint()
        stream = self._stream
        while not stream.messages and not stream.ended and stream.error is None:
            self._driver.session.want(stream)
            self._driver.kick()
            await self._waiting.park()
        self._read_head()
        if stream.messages and self._failure is None:
            return stream.messages.popleft()
        error = self._end()
        if error is not None:
            raise error
        return None

    def cancel(self) -> None:
        """The call is wanted no longer; harmless when it is over."""
        self._driver.session.reset(self._stream, H2Code.CANCEL)
        self._driver.kick()

    def _wake(self) -> None:
        self._waiting.unpark_all()

    @property
    def _gone(self) -> bool:
        return self._stream.error is not None or self._stream.ended

    def _end(self) -> RpcError | None:
        """How a call that is over has ended; None for OK."""
        stream = self._stream
        if stream.error is not None:
            return stream.error
        self._read_head()
        if self._failure is not None or stream.head_ended:
            return self._failure
        if stream.trailers is None:
            return RpcError(Code.UNKNOWN, "the server ended the call without a status")
        error = fields.parse_trailers(stream.trailers)
        if error is None and stream.reader.partial:
            return RpcError(Code.INTERNAL, "the server ended within a message")
        return error

    def _read_head(self) -> None:
        """Look at the fields that begin the answer, once."""
        stream = self._stream
        if self._metadata is None and stream.head is not None:
            try:
                self._metadata, self._failure = fields.parse_response(stream.head, stream.head_ended)
            except RpcError as error:
                self._metadata, self._failure = {}, error


class Channel:
    """One connection to a server. Made by `open_channel`.

    Attributes:
        closed: set when the connection is lost or closed.
    """

    def __init__(self, driver: Driver, authority: str) -> None:
        self._driver = driver
        self._authority = authority
        self._changed = trio.lowlevel.ParkingLot()
        self.closed = trio.Event()

    @property
    def leaving(self) -> bool:
        """Whether the server takes no new calls here (GOAWAY, or it is gone): open another channel."""
        return self._driver.session.leaving is not None or bool(self._driver.over)

    async def unary(
        self,
        path: str,
        request: bytes,
        metadata: Mapping[str, str] = _NOTHING,
        timeout_seconds: float | None = None,
    ) -> bytes:
        """Call a method that takes one message and answers with one.

        Raises:
            RpcError: the server's status, UNAVAILABLE where the connection is lost, DEADLINE_EXCEEDED.
        """
        async with self.stream(path, metadata, timeout_seconds) as call:
            await call.send_last(request)
            reply = await call.receive()
            if reply is None:
                raise RpcError(Code.INTERNAL, "the server ended the call without an answer")
            if await call.receive() is not None:
                raise RpcError(Code.INTERNAL, "the server answered with more than one message")
            return reply

    @asynccontextmanager
    async def stream(
        self, path: str, metadata: Mapping[str, str] = _NOTHING, timeout_seconds: float | None = None
    ) -> AsyncIterator[Call]:
        """A call of any kind. Leaving the block cancels it if it is not over.

        Raises:
            RpcError: UNAVAILABLE; DEADLINE_EXCEEDED when the block takes longer than `timeout_seconds`.
        """
        with trio.CancelScope() as scope:
            if timeout_seconds is not None:
                scope.deadline = trio.current_time() + timeout_seconds
            opened = fields.request(path, self._authority, metadata, _AGENT, timeout_seconds)
            call = Call(self._driver, await self._open(opened))
            try:
                yield call
            finally:
                call.cancel()
                self._changed.unpark()
        if scope.cancelled_caught:
            raise RpcError(Code.DEADLINE_EXCEEDED, f"no answer within {timeout_seconds:g} s")

    async def received(self) -> None:
        """Input has come: there may be room for a call."""
        self.wake()

    def wake(self) -> None:
        """Have those look again who wait for room."""
        self._changed.unpark_all()

    async def _open(self, opened: fields.Fields) -> Stream:
        session = self._driver.session
        await trio.lowlevel.checkpoint()
        while session.full and not self.leaving:
            await self._changed.park()
        if self._driver.over:
            raise RpcError(Code.UNAVAILABLE, self._driver.over)
        stream = session.open(opened)
        self._driver.kick()
        return stream


@asynccontextmanager
async def open_channel(
    host: str, port: int, context: Context | None, server_name: str = "", limits: Limits = CLIENT
) -> AsyncIterator[Channel]:
    """Connect, and have calls until the block is left; then the connection is closed.

    When the connection is lost its calls fail, the block goes on: the caller opens another one.

    Args:
        context: made anew for each connection; ALPN has to offer h2. None: plaintext.
        server_name: for SNI and the certificate; `host` where it is empty.

    Raises:
        RpcError: UNAVAILABLE, it could not be opened; says why.
    """
    name = server_name or host
    stream = await connect(host, port, context, name, limits)
    session = Session(
        limits, server=False, now=trio.current_time(), peer=Bucket(_POINTS, trio.current_time())
    )
    driver = Driver(stream, session, limits)
    channel = Channel(driver, f"[{name}]:{port}" if ":" in name else f"{name}:{port}")
    with ungrouped():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_run, driver, channel)
            try:
                yield channel
            finally:
                driver.finish()
                with closing(_GOODBYE_SECONDS):
                    await channel.closed.wait()
                nursery.cancel_scope.cancel()


async def _run(driver: Driver, channel: Channel) -> None:
    try:
        await driver.run(channel.received)
    finally:
        channel.closed.set()
        channel.wake()
