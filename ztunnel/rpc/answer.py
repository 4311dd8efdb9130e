"""A server's side of one call: what its handler sees, and how it ends."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import trio

from ztunnel.model.address import PeerAddress
from ztunnel.rpc import fields
from ztunnel.rpc.drive import Driver
from ztunnel.rpc.status import Code, RpcError
from ztunnel.rpc.stream import Stream

Boundary = Callable[[], AbstractContextManager[object]]
"""Makes the place where an unexpected error of a handler ends, reported; the client gets INTERNAL."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who calls, as far as the connection says.

    Attributes:
        certificate: the client's leaf, DER, which TLS has verified; None without one.
        intermediates: what the client has presented with it, DER.
    """

    address: PeerAddress
    certificate: bytes | None = None
    intermediates: tuple[bytes, ...] = ()


class ServerCall:
    """One call, for its handler. One task sends and one receives; they may be the same.

    Attributes:
        deadline: when the client gives up, by Trio's clock; inf for never. The handler is cancelled then.
        leaving: set when the connection is to end: a call that would go on for ever ends soon.
    """

    def __init__(
        self, driver: Driver, stream: Stream, request: fields.Request, peer: Peer, leaving: trio.Event
    ) -> None:
        self._driver = driver
        self._stream = stream
        self._waiting = trio.lowlevel.ParkingLot()
        self._begun = False
        self.path = request.path
        self.metadata: Mapping[str, str] = request.metadata
        self.peer = peer
        self.leaving = leaving
        seconds = request.timeout_seconds
        self.deadline = math.inf if seconds is None else trio.current_time() + seconds
        self.scope = trio.CancelScope(deadline=self.deadline)
        stream.changed = self._changed

    @property
    def gone(self) -> bool:
        """Whether nobody waits for an answer any more."""
        return self._driver.session.streams.get(self._stream.id) is not self._stream

    def take_messages_of(self, most_bytes: int) -> None:
        """Take messages of another size than the server's limits say, which hold for callers that nobody
        knows yet; before the first `receive`."""
        self._stream.reader.max_bytes = most_bytes

    async def receive(self) -> bytes | None:
        """The next message; None when the client sends no more.

        Raises:
            RpcError: a message that cannot be taken; let it end the call.
        """
        await trio.lowlevel.checkpoint()
        stream = self._stream
        while not stream.messages and not stream.ended and stream.error is None:
            self._driver.session.want(stream)
            self._driver.kick()
            await self._waiting.park()
        if stream.messages:
            return stream.messages.popleft()
        if stream.error is not None:
            raise stream.error
        return None

    async def send(self, message: bytes) -> None:
        """Send a message; returns when the client's window has taken it. Give it a deadline."""
        await trio.lowlevel.checkpoint()
        if not self._begun:
            self._begun = True
            self._driver.session.begin(self._stream)
        self._stream.put(message)
        self._driver.kick()
        while self._stream.outgoing and not self.gone:
            await self._waiting.park()

    def end(self, error: RpcError | None) -> None:
        """The last word. What was sent before and not taken is dropped where the call failed."""
        stream, session = self._stream, self._driver.session
        if self._begun or error is None:
            if not self._begun:
                session.begin(stream)
            if error is not None:
                stream.outgoing.clear()
            stream.finish = fields.trailers(error)
        else:
            session.refuse(stream, fields.trailers_only(error))
        self._driver.kick()

    def _changed(self) -> None:
        self._waiting.unpark_all()
        if self.gone:
            self.scope.cancel()


async def answer(
    call: ServerCall, handler: Callable[[ServerCall], Awaitable[None]], boundary: Boundary
) -> None:
    """Have a call handled, and end it: with OK, the RpcError that the handler raised, DEADLINE_EXCEEDED, or
    INTERNAL for a bug, which ends in `boundary`."""
    error: RpcError | None = RpcError(Code.INTERNAL, "internal error")
    with boundary():
        error = await _handle(call, handler, boundary)
    if call.gone:
        return
    if call.scope.cancelled_caught:
        error = RpcError(Code.DEADLINE_EXCEEDED, "the deadline of the call has passed")
    call.end(error)


async def _handle(
    call: ServerCall, handler: Callable[[ServerCall], Awaitable[None]], boundary: Boundary
) -> RpcError | None:
    """How the handler wants the call to end; a nursery of it may have put its RpcError into a group."""
    try:
        with call.scope:
            await handler(call)
    except RpcError as error:
        return error
    except BaseExceptionGroup as group:
        ours, others = group.split(RpcError)
        if others is None and ours is not None:
            return _first(ours)
        # The connection may end at the same time: then nobody is there to be told, and an error that went on
        # beside its cancellation would end the server.
        bugs, cancelled = group.split(Exception)
        if cancelled is None:
            raise
        if bugs is not None and (unexpected := bugs.split(RpcError)[1]) is not None:
            with boundary():
                raise unexpected from None
        raise cancelled from None
    return None


def _first(group: BaseExceptionGroup[RpcError]) -> RpcError:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
