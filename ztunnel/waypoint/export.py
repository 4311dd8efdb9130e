"""Exports spans over OTLP/HTTP, without ever making a request wait.

Spans are put into a bounded queue; a Trio task sends them in batches. Where the collector is slow or away,
the queue fills, and then new spans are dropped and counted: nothing else comes of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial

import httpx2
import trio

from ztunnel.telemetry.span import Span, render_spans

_QUEUE_SPANS = 4096
_BATCH_SPANS = 256
"""Rendered in a thread; some hundred KiB."""

_FLUSH_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_TIMEOUT = httpx2.Timeout(10.0, connect=5.0)


class SpanExporter:
    """The queue, and who empties it.

    Attributes:
        sent: spans that the collector has taken.
        dropped: spans that it never got.
    """

    def __init__(
        self, endpoint: str, resource: Mapping[str, str], version: str, complain: Callable[[str], None]
    ) -> None:
        """`endpoint` is the URL that spans are sent to; `complain` is told when sending begins to fail."""
        self._endpoint = endpoint
        self._render = partial(render_spans, resource=resource, version=version)
        self._complain = complain
        self._queue: deque[Span] = deque()
        self._failing = False
        self.sent = 0
        self.dropped = 0

    def put(self, span: Span) -> None:
        """One that has ended."""
        if len(self._queue) >= _QUEUE_SPANS:
            self.dropped += 1
        else:
            self._queue.append(span)

    async def run(self) -> None:
        """Send what comes, for ever. A collector that fails is asked again after ever longer pauses, with
        what has come meanwhile; a batch that it did not take is lost."""
        async with httpx2.AsyncClient(timeout=_TIMEOUT, trust_env=False) as client:
            pause = _FLUSH_SECONDS
            while True:
                await trio.sleep(pause)
                pause = (
                    _FLUSH_SECONDS if await self._empty(client) else min(2 * pause, _LONGEST_PAUSE_SECONDS)
                )

    async def flush(self) -> None:
        """Send what is left, once; for the end of the process, within the caller's deadline."""
        async with httpx2.AsyncClient(timeout=_TIMEOUT, trust_env=False) as client:
            await self._empty(client)

    async def _empty(self, client: httpx2.AsyncClient) -> bool:
        while self._queue:
            if not await self._send(client):
                return False
        return True

    async def _send(self, client: httpx2.AsyncClient) -> bool:
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), _BATCH_SPANS))]
        body = await trio.to_thread.run_sync(self._render, batch)
        why = ""
        try:
            answer = await client.post(
                self._endpoint, content=body, headers={"content-type": "application/json"}
            )
            if not answer.is_success:
                why = f"it answers {answer.status_code}"
        except (httpx2.HTTPError, OSError) as error:
            why = str(error) or type(error).__name__
        if why:
            self.dropped += len(batch)
            if not self._failing:
                self._complain(f"spans cannot be sent to {self._endpoint}: {why}")
        else:
            self.sent += len(batch)
        self._failing = bool(why)
        return not why
