"""Serves the current snapshot to subscribers: one publisher for each, over channels or whatever carries them
later."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from ztunnel.errors import PeerError
from ztunnel.xds.pb import discovery_pb2
from ztunnel.xds.publisher import Publisher
from ztunnel.xds.snapshot import TYPES, Snapshot

Requests = trio.MemorySendChannel[discovery_pb2.DeltaDiscoveryRequest]
Responses = trio.MemoryReceiveChannel[discovery_pb2.DeltaDiscoveryResponse]

_REQUESTS: Final = 2 * len(TYPES)
"""Requests under way in one session. When full, the subscriber waits in `send`."""
_RESPONSES: Final = 2 * len(TYPES)
"""Responses under way in one session. A publisher has one unanswered response a type, so it is full only for
a subscriber that answers without reading: that session is ended."""
_WAITING: Final = 64
"""Sessions opened and not yet taken up. When full, `open_session` raises trio.WouldBlock."""


class _Session:
    """One subscriber: its publisher and the channel that its responses go into."""

    def __init__(
        self,
        snapshot: Snapshot,
        requests: trio.MemoryReceiveChannel[discovery_pb2.DeltaDiscoveryRequest],
        responses: trio.MemorySendChannel[discovery_pb2.DeltaDiscoveryResponse],
    ) -> None:
        self.publisher = Publisher(snapshot)
        self._requests = requests
        self._responses = responses

    def publish(self, snapshot: Snapshot) -> None:
        """Send what can be sent of `snapshot`; never waits."""
        self._send(self.publisher.publish(snapshot))

    async def run(self) -> None:
        """Answer requests until the subscriber leaves, or says what cannot be served."""
        with self._requests, self._responses:
            async for request in self._requests:
                try:
                    self._send(self.publisher.receive(request))
                except PeerError:
                    return

    def _send(self, responses: list[discovery_pb2.DeltaDiscoveryResponse]) -> None:
        try:
            for response in responses:
                self._responses.send_nowait(response)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self._requests.close()
            self._responses.close()


class Server:
    """Holds the current snapshot. `run` serves; `publish` and `open_session` may be called before it runs.

    Attributes:
        published_at: when the current snapshot was published, by Trio's clock.
    """

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self.snapshot = snapshot or Snapshot()
        self.published_at = -math.inf
        self._sessions: set[_Session] = set()
        self._opened, self._openings = trio.open_memory_channel[_Session](_WAITING)

    @property
    def sessions(self) -> int:
        """How many subscribers there are."""
        return len(self._sessions)

    @property
    def settled(self) -> bool:
        """Whether every subscriber has answered for the current snapshot."""
        return all(session.publisher.settled for session in self._sessions)

    @property
    def rejections(self) -> tuple[str, ...]:
        """What subscribers refused of their last responses, as `name: reason; ...`."""
        return tuple(text for session in self._sessions for text in session.publisher.rejections.values())

    def publish(self, snapshot: Snapshot) -> None:
        """Make `snapshot` the current one and send each subscriber what differs; a slow one gets it later."""
        self.snapshot = snapshot
        self.published_at = trio.current_time()
        for session in list(self._sessions):
            session.publish(snapshot)

    def open_session(self) -> tuple[Requests, Responses]:
        """A new subscriber's ends: to send requests, to receive responses. Closing either ends the session.

        Raises:
            trio.WouldBlock: too many sessions wait to be taken up.
        """
        send_request, requests = trio.open_memory_channel[discovery_pb2.DeltaDiscoveryRequest](_REQUESTS)
        responses, receive_response = trio.open_memory_channel[discovery_pb2.DeltaDiscoveryResponse](
            _RESPONSES
        )
        self._opened.send_nowait(_Session(self.snapshot, requests, responses))
        return send_request, receive_response

    @asynccontextmanager
    async def session(self) -> AsyncIterator[tuple[Requests, Responses]]:
        """`open_session` for a block."""
        requests, responses = self.open_session()
        with requests, responses:
            yield requests, responses

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve sessions until cancelled; then every session's channels are closed."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            async for session in self._openings:
                nursery.start_soon(self._serve, session)

    async def _serve(self, session: _Session) -> None:
        session.publish(self.snapshot)
        self._sessions.add(session)
        try:
            await session.run()
        except trio.ClosedResourceError:
            return
        finally:
            self._sessions.discard(session)
