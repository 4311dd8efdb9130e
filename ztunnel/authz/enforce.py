"""Keeps verdicts about open connections true: judges again what a change can touch, aborts the refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Protocol

from ztunnel.authz.verdict import Admitted, judge
from ztunnel.errors import ConnectionFailed, Denied
from ztunnel.model.address import Endpoint, IPAddress
from ztunnel.model.connection import Connection
from ztunnel.model.identity import SpiffeId
from ztunnel.model.workload import Workload
from ztunnel.state.change import Change
from ztunnel.state.world import World

Judge = Callable[[World, Workload, Connection], Admitted]
_Alike = tuple[str, IPAddress, Endpoint, SpiffeId | None]


class Live(Protocol):
    """An open connection, hashable by identity."""

    @property
    def workload_uid(self) -> str:
        """The destination, whose policies count."""

    @property
    def connection(self) -> Connection:
        """What was judged when it was opened."""

    def abort(self, error: ConnectionFailed) -> None:
        """End it now; may unregister it at once or later."""


class LiveConnections:
    """The open connections of one kind that policy has admitted. For one thread.

    Register a connection before it is judged and unregister it when it ends: then no change falls between.
    """

    def __init__(self, judge: Judge = judge) -> None:
        self._judge = judge
        self._live: dict[str, set[Live]] = {}

    def register(self, live: Live, source_uid: str = "") -> None:
        """From now on changes that touch the destination (and the source, if given) concern `live`."""
        self._add(live.workload_uid, live)
        if source_uid:
            self._add(source_uid, live)

    def unregister(self, live: Live, source_uid: str = "") -> None:
        """Forget `live`, with the same `source_uid`; harmless if it is not known."""
        self._discard(live.workload_uid, live)
        if source_uid:
            self._discard(source_uid, live)

    def of(self, uid: str) -> frozenset[Live]:
        """What is open to (or registered as coming from) a workload."""
        return frozenset(self._live.get(uid, ()))

    def all(self) -> frozenset[Live]:
        """What is open. Costs a look at each."""
        return frozenset(self._all())

    def __len__(self) -> int:
        """How many connections are open. Costs a look at each."""
        return len(self._all())

    def abort_all(self, error: ConnectionFailed) -> None:
        """End everything now, each with `error`: the deadline of a drain has passed."""
        with ExitStack() as aborts:
            for live in self._all():
                aborts.callback(live.abort, error)

    def _all(self) -> set[Live]:
        return set().union(*self._live.values())

    def rejudge(self, world: World, change: Change) -> int:
        """Judge again what `change` can touch, and abort what is refused by now.

        Costs a look at each connection so touched, and one verdict for all that differ in their source port
        alone, at which no policy looks; where policies changed, one look at each workload with open
        connections besides. A workload that is gone from the world keeps its connections: its pod
        is leaving.

        Returns:
            How many were aborted, each with "connection closed due to policy change: " and why.
        """
        touched = {live for uid in self._touched(world, change) for live in self._live[uid]}
        judged: dict[_Alike, Denied | None] = {}
        aborted = 0
        with ExitStack() as aborts:
            for live in touched:
                connection = live.connection
                alike = live.workload_uid, connection.source.ip, connection.destination, connection.identity
                if alike in judged:
                    denied = judged[alike]
                else:
                    denied = judged[alike] = self._denied(world, live)
                if denied is not None:
                    aborts.callback(live.abort, _changed(denied))
                    aborted += 1
        return aborted

    def _denied(self, world: World, live: Live) -> Denied | None:
        """Why it is refused now."""
        workload = world.workload(live.workload_uid)
        if workload is not None:
            try:
                self._judge(world, workload, live.connection)
            except Denied as denied:
                return denied
        return None

    def _touched(self, world: World, change: Change) -> Iterable[str]:
        if change.everywhere:
            return self._live.keys()
        if not change.policies:
            return [uid for uid in change.reclassified if uid in self._live]
        known = ((uid, world.workload(uid)) for uid in self._live)
        return [uid for uid, workload in known if workload and change.touches(workload)]

    def _add(self, uid: str, live: Live) -> None:
        known = self._live.get(uid)
        if known is None:
            self._live[uid] = {live}
        else:
            known.add(live)

    def _discard(self, uid: str, live: Live) -> None:
        known = self._live.get(uid)
        if known is not None:
            known.discard(live)
            if not known:
                del self._live[uid]


def _changed(denied: Denied) -> Denied:
    reason = str(denied).removeprefix("connection closed due to policy rejection: ")
    error = Denied(f"connection closed due to policy change: {reason}", denied.policy)
    error.__cause__ = denied
    return error
