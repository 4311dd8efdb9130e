"""Which session takes the next tunnel, and when there has to be another one: the choice, without any I/O.

- Sessions are shared only within one key, so that no identity's tunnels hang on what another's peer does.
- The first session with room takes the tunnel, so that surplus ones become idle and are released.
- A full session stays: it takes tunnels again when some have ended.
- While sessions are being dialled, those who wait are counted: one more is dialled when they will not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Generic, Protocol, TypeVar

from ztunnel.model.address import Endpoint, IPAddress
from ztunnel.model.identity import SpiffeId


class PoolKey:
    """What tunnels must have in common to share a session (ztunnel src/proxy/pool.rs `WorkloadKey`).

    `destinations` are the identities that the far end may prove; `destination` is the endpoint that is
    dialled. One is kept for each route and looked up for each connection, so its hash is made once; and a
    session outlives the world in which it was dialled, so it is compared with the keys of later routes.
    """

    __slots__ = ("_hash", "destination", "destinations", "source", "source_ip")

    def __init__(
        self,
        source: SpiffeId,
        destinations: frozenset[SpiffeId],
        source_ip: IPAddress,
        destination: Endpoint,
    ) -> None:
        self.source: Final = source
        self.destinations: Final = destinations
        self.source_ip: Final = source_ip
        self.destination: Final = destination
        self._hash: Final = hash((source, destinations, source_ip, destination))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PoolKey):
            return NotImplemented
        return self._hash == other._hash and (
            (self.source is other.source or self.source == other.source)
            and self.destinations == other.destinations
            and (self.source_ip is other.source_ip or self.source_ip == other.source_ip)
            and self.destination == other.destination
        )


class Poolable(Protocol):
    """What the choice needs to know of a session."""

    @property
    def idle_since(self) -> float | None:
        """Monotonic seconds since it has no tunnel; None while it has some."""

    @property
    def closed(self) -> bool:
        """Whether its peer takes no tunnel at all at the moment: another session would not either."""

    def can_take(self) -> bool:
        """Whether it takes one more tunnel now."""


S = TypeVar("S", bound=Poolable)


class Pool(Generic[S]):
    """Sessions by key. What it returns to be retired has left it already."""

    def __init__(self, streams_per_session: int) -> None:
        self._streams = streams_per_session
        self._sessions: dict[PoolKey, list[S]] = {}
        self._dialling: dict[PoolKey, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._sessions.values()))

    def __iter__(self) -> Iterator[tuple[PoolKey, S]]:
        for key, sessions in self._sessions.items():
            for session in sessions:
                yield key, session

    def take(self, key: PoolKey) -> S | None:
        """A session with room for one more tunnel, None where there is none."""
        for session in self._sessions.get(key, ()):
            if session.can_take():
                return session
        return None

    def closed(self, key: PoolKey) -> S | None:
        """A session whose peer takes no tunnel at all at the moment."""
        for session in self._sessions.get(key, ()):
            if session.closed:
                return session
        return None

    def should_dial(self, key: PoolKey, waiting: int) -> bool:
        """Whether `waiting` tunnels, for which there is no room, need one more session than is being
        dialled."""
        return self._dialling.get(key, 0) * self._streams < waiting

    def dialling(self, key: PoolKey) -> None:
        """A session is being dialled; `dialled` or `failed` follows."""
        self._dialling[key] = self._dialling.get(key, 0) + 1

    def dialled(self, key: PoolKey, session: S) -> None:
        """A session stands."""
        self.failed(key)
        self._sessions.setdefault(key, []).append(session)

    def failed(self, key: PoolKey) -> None:
        """Dialling came to nothing."""
        left = self._dialling[key] - 1
        if left:
            self._dialling[key] = left
        else:
            del self._dialling[key]

    def drop(self, key: PoolKey, session: S) -> None:
        """A session has ended, or is not to be used any more; nothing if it has left the pool before."""
        sessions = self._sessions.get(key, [])
        if session in sessions:
            sessions.remove(session)
        if not sessions:
            self._sessions.pop(key, None)

    def take_out(self, concerns: Callable[[PoolKey], bool]) -> list[S]:
        """Take out the sessions whose key is concerned by a change: retire them.

        A new certificate concerns the keys of its identity as the source; a workload that went, those with
        its address as either end.
        """
        keys = [key for key in self._sessions if concerns(key)]
        return [session for key in keys for session in self._sessions.pop(key)]

    def take_idle(self, now: float, idle_seconds: float) -> list[S]:
        """Take out the sessions that have had no tunnel for so long (ztunnel POOL_UNUSED_RELEASE_TIMEOUT,
        300 s)."""
        idle = [
            (key, session)
            for key, session in self
            if session.idle_since is not None and now - session.idle_since >= idle_seconds
        ]
        for key, session in idle:
            self.drop(key, session)
        return [session for _, session in idle]
