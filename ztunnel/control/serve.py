"""Serves the current snapshot to subscribers: one publisher for each, over channels or whatever carries them
later. A waypoint is sent what it serves (`scopes.py`), whoever else subscribes everything."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Final, NamedTuple

import trio

from ztunnel.control.convergence import Convergence
from ztunnel.control.sync_status import SubscriberStatus
from ztunnel.control.waypoints.scope import Names, NoSecrets, Scope
from ztunnel.control.waypoints.scopes import Scopes
from ztunnel.errors import PeerError
from ztunnel.xds.pb import discovery_pb2
from ztunnel.xds.publisher import Publisher
from ztunnel.xds.resource import CREDENTIAL, JWT_POLICY, TYPES
from ztunnel.xds.snapshot import Snapshot
from ztunnel.xds.subscriber import asks_on_demand, waypoint_of

Requests = trio.MemorySendChannel[discovery_pb2.DeltaDiscoveryRequest]
Responses = trio.MemoryReceiveChannel[discovery_pb2.DeltaDiscoveryResponse]

_REQUESTS: Final = 2 * len(TYPES)
"""Requests under way in one session. When full, the subscriber waits in `send`."""
_RESPONSES: Final = 2 * len(TYPES)
"""Responses under way in one session. A publisher has one unanswered response a type, so it is full only for
a subscriber that answers without reading: that session is ended."""
_WAITING: Final = 64
"""Sessions opened and not yet taken up. When full, `open_session` raises trio.WouldBlock."""


def _ignore(_what: object) -> None:
    """The default observer."""


class _Published(NamedTuple):
    """A snapshot that a session has not come to yet, None where it is the one before; since when a change is
    known, and a waypoint's scope with the names of which it says something else."""

    snapshot: Snapshot | None
    changed_at: float
    scope: Scope | None = None
    differing: Names | None = None


class _Session:
    """One subscriber: its publisher and the channel that its responses go into.

    Attributes:
        waypoint: the uid of the waypoint that it is; empty for all others.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        requests: trio.MemoryReceiveChannel[discovery_pb2.DeltaDiscoveryRequest],
        responses: trio.MemorySendChannel[discovery_pb2.DeltaDiscoveryResponse],
        server: Server,
    ) -> None:
        self.publisher = Publisher(snapshot)
        self.publisher.narrow(NoSecrets())
        self._published: list[_Published] = []
        self.waypoint = ""
        self._works = False
        self._wake, self._jobs = trio.open_memory_channel[discovery_pb2.DeltaDiscoveryRequest | None](1)
        self.caller = self.account = ""
        self.connected_at = trio.current_time()
        self.sent_at: dict[str, float] = {}
        self._requests = requests
        self._responses = responses
        self._convergence = Convergence()
        self._server = server

    @property
    def settled(self) -> bool:
        """Whether the subscriber has answered for all that was published."""
        return not self._published and not self._works and self.publisher.settled

    def publish(self, published: _Published) -> None:
        """Send what can be sent of it, as soon as `run` comes to it; never waits."""
        self._published.append(published)
        with suppress(trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
            self._wake.send_nowait(None)

    def begin(self, snapshot: Snapshot) -> None:
        """Take `snapshot` for what there is; never waits."""
        self.publisher.advance(snapshot)

    async def run(self) -> None:
        """Answer requests until the subscriber leaves, or says what cannot be served."""
        with self._requests, self._responses, self._jobs, self._wake:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, nursery.cancel_scope)
                with suppress(PeerError, trio.EndOfChannel):
                    while True:
                        await self._act(await self._jobs.receive())
                nursery.cancel_scope.cancel()

    async def _read(self, session: trio.CancelScope) -> None:
        """Hand requests on, one at a time, until there are no more."""
        with suppress(trio.ClosedResourceError, trio.BrokenResourceError, trio.EndOfChannel):
            while True:
                await self._wake.send(await self._requests.receive())
        session.cancel()

    async def _act(self, request: discovery_pb2.DeltaDiscoveryRequest | None) -> None:
        """Take over what has been published and asked, and send what follows; others have the thread in
        between."""
        self._works = True
        try:
            await self._work(request)
        finally:
            self._works = False

    async def _work(self, request: discovery_pb2.DeltaDiscoveryRequest | None) -> None:
        self._catch_up()
        if request is not None:
            self._measure(request)
            if request.type_url == JWT_POLICY and request.resource_names_subscribe:
                self._server.asked(request.resource_names_subscribe)
            for _ in self.publisher.take(request):
                await trio.lowlevel.checkpoint()
            self._find_scope()
        responses = []
        for response in self.publisher.work():
            if response is None:
                await trio.lowlevel.checkpoint()
            else:
                responses.append(response)
        self._send(responses)

    def _catch_up(self) -> None:
        """Take over what has been published."""
        published, self._published = self._published, []
        for snapshot, changed_at, scope, differing in published:
            if snapshot is not None:
                urls = (url for url, names in snapshot.changed.items() if names)
                self._convergence.changed(urls, changed_at)
                self.publisher.advance(snapshot)
            if scope is not None:
                self.publisher.narrow(self._narrowed(scope), differing)

    def _find_scope(self) -> None:
        """That of a waypoint, as soon as it has said that it is one."""
        if not self.waypoint and (uid := waypoint_of(self.publisher.node)):
            self._catch_up()  # the scope is one of the newest snapshot
            self.waypoint = uid
            self.publisher.narrow(self._narrowed(self._server.scopes.follow(uid)))

    def _narrowed(self, scope: Scope) -> Scope:
        """All addresses, for a waypoint of a version that does not ask for those of its clients; and no
        credentials, for whoever has not proved to be its pod's account."""
        if not asks_on_demand(self.publisher.node):
            scope = replace(scope, whole=True)
        if self.account and self.account != scope.account:
            scope = replace(scope, names={**scope.names, CREDENTIAL: frozenset()})
        return scope

    def _measure(self, untrusted: discovery_pb2.DeltaDiscoveryRequest) -> None:
        since = self._convergence.answered(untrusted.type_url, untrusted.response_nonce)
        if since is not None and not untrusted.HasField("error_detail"):
            self._server.acknowledged(trio.current_time() - since)

    def _send(self, responses: list[discovery_pb2.DeltaDiscoveryResponse]) -> None:
        try:
            for response in responses:
                self._convergence.sent(response.type_url, response.nonce)
                self._responses.send_nowait(response)
                self.sent_at[response.type_url] = trio.current_time()
            self._convergence.settle()
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self._requests.close()
            self._responses.close()


class Server:
    """Holds the current snapshot. `run` serves; `publish` and `open_session` may be called before it runs.

    Attributes:
        changed_at: when the first change was known that made the current snapshot, by Trio's clock; when
            it was published, where nobody said.
        acknowledged: called whenever a subscriber has taken changes, with the seconds since the first of
            them was known; nobody at first.
        scopes: what waypoints are sent.
        asked: called with the names of RequestAuthentications that a subscriber would like to have newer, as
            tokens name keys that are not there; nobody at first.
    """

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self.snapshot = snapshot or Snapshot()
        self.scopes = Scopes(self.snapshot)
        self.changed_at = -math.inf
        self.acknowledged: Callable[[float], None] = _ignore
        self.asked: Callable[[Iterable[str]], None] = _ignore
        self._sessions: set[_Session] = set()
        self._scoped = trio.Event()
        self._opened, self._openings = trio.open_memory_channel[_Session](_WAITING)

    @property
    def sessions(self) -> int:
        """How many subscribers there are."""
        return len(self._sessions)

    @property
    def settled(self) -> bool:
        """Whether every subscriber has answered for the current snapshot."""
        return all(session.settled for session in self._sessions)

    @property
    def rejections(self) -> tuple[str, ...]:
        """What subscribers refused of their last responses, as `name: reason; ...`."""
        return tuple(text for session in self._sessions for text in session.publisher.rejections.values())

    def publish(self, snapshot: Snapshot) -> None:
        """Make `snapshot` the current one and send each subscriber what differs; a slow one gets it later."""
        self.snapshot = snapshot
        self.changed_at = snapshot.changed_at
        if not math.isfinite(self.changed_at):
            self.changed_at = trio.current_time()
        self._spread(snapshot, self.scopes.advance(snapshot, trio.current_time()))
        self._scoped.set()

    def _spread(self, snapshot: Snapshot | None, differing: Mapping[str, Names]) -> None:
        for session in list(self._sessions):
            names = differing.get(session.waypoint)
            if names is not None:
                scope = self.scopes.scope(session.waypoint)
                session.publish(_Published(snapshot, self.changed_at, scope, names))
            elif snapshot is not None:
                session.publish(_Published(snapshot, self.changed_at))

    @property
    def subscribers(self) -> list[SubscriberStatus]:
        """How far each subscriber is."""
        return [
            SubscriberStatus(
                one.publisher.node, one.caller, one.connected_at, one.publisher.status, dict(one.sent_at)
            )
            for one in self._sessions
        ]

    def open_session(self, caller: str = "", account: str = "") -> tuple[Requests, Responses]:
        """A new subscriber's ends: to send requests, to receive responses. Closing either ends the session.
        `caller` is who has proved to be at the other end, with the service account `account`
        (`namespace/name`); empty: it is this process.

        Raises:
            trio.WouldBlock: too many sessions wait to be taken up.
        """
        send_request, requests = trio.open_memory_channel[discovery_pb2.DeltaDiscoveryRequest](_REQUESTS)
        responses, receive_response = trio.open_memory_channel[discovery_pb2.DeltaDiscoveryResponse](
            _RESPONSES
        )
        session = _Session(self.snapshot, requests, responses, self)
        session.caller, session.account = caller, account
        self._opened.send_nowait(session)
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
            nursery.start_soon(self._let_go)
            task_status.started()
            async for session in self._openings:
                nursery.start_soon(self._serve, session)

    async def _let_go(self) -> None:
        """Have waypoints forget what they have to do with no more, each in its time."""
        while True:
            with trio.move_on_at(self.scopes.due):
                await self._scoped.wait()
            self._scoped = trio.Event()
            self._spread(None, self.scopes.expire(trio.current_time()))

    async def _serve(self, session: _Session) -> None:
        session.begin(self.snapshot)
        self._sessions.add(session)
        try:
            await session.run()
        except trio.ClosedResourceError:
            return
        finally:
            self._sessions.discard(session)
            if session.waypoint:
                self.scopes.leave(session.waypoint)
