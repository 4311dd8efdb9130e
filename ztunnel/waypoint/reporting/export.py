"""Exports spans and log records to a collector, without ever making a request wait.

They are put into a bounded queue; a Trio task sends them in batches. Where the collector is slow or away,
the queue fills, and then new ones are dropped and counted: nothing else comes of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import trio

from ztunnel.errors import PeerError
from ztunnel.rpc.call import Channel, open_channel
from ztunnel.rpc.limits import SERVER
from ztunnel.rpc.status import RpcError
from ztunnel.waypoint.reporting.otlp import refused

if TYPE_CHECKING:
    import httpx2

_QUEUE = 4096
_BATCH = 256
"""Rendered in a thread; some hundred KiB."""

_FLUSH_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
"""For a collector to answer, where nothing else is said."""

_LIMITS = replace(SERVER, message_bytes=1 << 20, connect_seconds=_CONNECT_SECONDS)
"""A collector's answers are small."""

T = TypeVar("T")


class Lost(Exception):
    """A connection was closed before anything of an answer came: one that was kept may be at any time."""


class Collector(Protocol):
    """A connection with one. `leaving`: it takes no more over this one."""

    @property
    def leaving(self) -> bool: ...

    async def send(self, body: bytes) -> tuple[int, str]:
        """Send one batch: how many of it were not taken, -1 for none of it, and why. Raises OSError or
        RpcError: there is no connection (any more); Lost: the same, and it may be sent again."""


Open = Callable[[], AbstractAsyncContextManager[Collector]]
"""A connection, for a block. Raises as `send`."""


class Exporter(Generic[T]):
    """The queue, and who empties it.

    Attributes:
        sent: spans that the collector has taken.
        dropped: spans that it never got.
    """

    def __init__(
        self, where: str, open: Open, render: Callable[[Sequence[T]], bytes], complain: Callable[[str], None]
    ) -> None:
        """`where` they go, for a message; `complain` is told when sending begins to fail."""
        self._where = where
        self._open = open
        self._render = render
        self._complain = complain
        self._queue: deque[T] = deque()
        self._failing = False
        self.sent = 0
        self.dropped = 0

    def put(self, one: T) -> None:
        """One that has ended."""
        if len(self._queue) >= _QUEUE:
            self.dropped += 1
        else:
            self._queue.append(one)

    async def run(self) -> None:
        """Send what comes, for ever. A collector that fails is asked again after ever longer pauses, with
        what has come meanwhile; a batch that it did not take is lost."""
        pause = _FLUSH_SECONDS
        while True:
            await trio.sleep(pause)
            if self._queue:
                sent = self.sent
                await self._send_all(goes_on=True)
                pause = _FLUSH_SECONDS if self.sent > sent else min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def flush(self) -> None:
        """Send what is left, once; for the end of the process, within the caller's deadline."""
        if self._queue:
            await self._send_all(goes_on=False)

    def end(self) -> None:
        """Nobody sends what is left."""
        self.dropped += len(self._queue)
        self._queue.clear()

    async def _send_all(self, *, goes_on: bool) -> None:
        """Over one connection, until that fails, or nothing is left and no more is to come."""
        try:
            async with self._open() as collector:
                while not collector.leaving:
                    if self._queue:
                        if not await self._send(collector):
                            return
                    elif goes_on:
                        await trio.sleep(_FLUSH_SECONDS)
                    else:
                        return
        except (OSError, RpcError, PeerError, Lost) as error:
            self._fails(str(error) or type(error).__name__)

    async def _send(self, collector: Collector) -> bool:
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), _BATCH))]
        lost = len(batch)
        try:
            body = await trio.to_thread.run_sync(self._render, batch)
            count, why = await self._send_again(collector, body)
            lost = len(batch) if count < 0 else min(count, len(batch))
        finally:
            self.dropped += lost
            self.sent += len(batch) - lost
        if lost:
            self._fails(why or f"{lost} were not taken")
        else:
            self._failing = False
        return count >= 0

    async def _send_again(self, collector: Collector, body: bytes) -> tuple[int, str]:
        """Send it, once more where nothing was heard of it."""
        try:
            return await collector.send(body)
        except Lost:
            return await collector.send(body)

    def _fails(self, why: str) -> None:
        if not self._failing:
            self._complain(f"cannot send to {self._where}: {why}")
        self._failing = True


class Cancellable(Protocol):
    """What is under way; `lost`: it is over, and nothing of an answer came."""

    lost: bool

    def cancel(self) -> None:
        """Nobody waits for it any more."""


Start = Callable[[bytes, Callable[[bytes | None, str], None]], Cancellable | None]
"""Sends a batch from the engine, and tells the answer, or None and why there is none; perhaps at once."""


class OverMesh:
    """A collector that is a service of the mesh: each batch is a request of the waypoint's own, for which the
    engine finds a server."""

    leaving = False

    def __init__(
        self,
        post: Callable[[Callable[[], None]], None],
        start: Start,
        read: Callable[[bytes], tuple[int, str]] = lambda answer: (0, ""),
    ) -> None:
        """`post` has the engine call something, `read` says what of a batch an answer does not take, and
        why."""
        self._post = post
        self._start = start
        self._read = read

    async def send(self, body: bytes) -> tuple[int, str]:
        """As `Collector` has it; who is cancelled meanwhile ends the request."""
        told: list[tuple[bytes | None, str]] = []
        under_way: list[Cancellable | None] = []
        done = trio.Event()

        def then(answer: bytes | None, why: str) -> None:
            told.append((answer, why))
            done.set()

        def cancel() -> None:
            for each in under_way:
                if each is not None:
                    each.cancel()

        self._post(lambda: under_way.append(self._start(body, then)))
        try:
            await done.wait()
        finally:
            if not told:
                self._post(cancel)
        answer, why = told[0]
        if answer is not None:
            return self._read(answer)
        if any(each is not None and each.lost for each in under_way):
            raise Lost(why)
        return -1, why


class Direct:
    """A connection outside of the mesh, for as long as it is to be one: `over` says when it is no more."""

    def __init__(self, inner: Collector, over: Callable[[], bool]) -> None:
        self._inner = inner
        self._over = over

    @property
    def leaving(self) -> bool:
        """Whether the next batch goes another way."""
        return self._over() or self._inner.leaving

    async def send(self, body: bytes) -> tuple[int, str]:
        """As `Collector` has it."""
        return await self._inner.send(body)


class _OverHttp:
    leaving = False

    def __init__(self, client: httpx2.AsyncClient, url: str, headers: Mapping[str, str]) -> None:
        self._client = client
        self._client.event_hooks = {"response": [self._hear]}
        self._url = url
        self._headers = headers
        self._heard = False

    async def _hear(self, _answer: httpx2.Response) -> None:
        self._heard = True

    async def send(self, body: bytes) -> tuple[int, str]:
        from httpx2 import HTTPError, ReadError, RemoteProtocolError, WriteError

        self._heard = False
        try:
            answer = await self._client.post(self._url, content=body, headers=self._headers)
        except HTTPError as error:
            why = str(error) or type(error).__name__
            if self._heard or not isinstance(error, RemoteProtocolError | ReadError | WriteError):
                raise ConnectionError(why) from error
            raise Lost(why) from error
        return (0, "") if answer.is_success else (-1, f"it answers {answer.status_code}")


class _OverGrpc:
    def __init__(self, channel: Channel, method: str, headers: Mapping[str, str], seconds: float) -> None:
        self._channel = channel
        self._method = method
        self._headers = headers
        self._seconds = seconds

    @property
    def leaving(self) -> bool:
        return self._channel.leaving

    async def send(self, body: bytes) -> tuple[int, str]:
        return refused(await self._channel.unary(self._method, body, self._headers, self._seconds))


@asynccontextmanager
async def open_http(url: str, headers: Mapping[str, str], seconds: float = 0.0) -> AsyncIterator[Collector]:
    """Batches by POST. `headers` have the type of the content."""
    import httpx2  # a proxy without such a collector takes four megabytes less

    timeout = httpx2.Timeout(seconds or ANSWER_SECONDS, connect=_CONNECT_SECONDS)
    async with httpx2.AsyncClient(timeout=timeout, trust_env=False) as client:
        yield _OverHttp(client, url, headers)


@asynccontextmanager
async def open_grpc(
    at: tuple[str, int], method: str, headers: Mapping[str, str], seconds: float = 0.0
) -> AsyncIterator[Collector]:
    """Batches by a method of gRPC, in plaintext."""
    host, port = at
    async with open_channel(host, port, None, limits=_LIMITS) as channel:
        yield _OverGrpc(channel, method, headers, seconds or ANSWER_SECONDS)
