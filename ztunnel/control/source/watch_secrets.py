"""Watches the Secrets that waypoints use, each by its name: no more than these is asked for, so that a right
to these alone is enough (`resourceNames`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

import trio

from ztunnel.control.services.endpoint import Name
from ztunnel.control.source.served import Served
from ztunnel.kube.call import Api
from ztunnel.kube.informer import Change, Informer, Removal
from ztunnel.kube.resource import SECRETS
from ztunnel.kube.watch import Watcher

_MOST: Final = 500
"""Secrets watched: each is a connection's stream. What is beyond is not read, and said so."""

Take = Callable[[Served, Sequence[Change]], None]


class SecretWatch:
    """Those of one cluster."""

    def __init__(
        self, api: Api, rng: Random, take: Take, tell: Callable[[], None], most: int = _MOST
    ) -> None:
        """`take` gets what changes; `tell` is called when more is known, or something is wrong or no more."""
        self._most = most
        self._api = api
        self._rng = rng
        self._take = take
        self._tell = tell
        self._watched: dict[Name, tuple[Watcher, trio.CancelScope]] = {}
        self._wanted: frozenset[Name] = frozenset()
        self._changed = trio.Event()
        self._told: dict[Name, str] = {}

    @property
    def pending(self) -> bool:
        """Whether it is not known of each yet whether it is there."""
        names = sorted(self._wanted)[: self._most]
        return any(name not in self._watched or self._is_pending(name) for name in names)

    def _is_pending(self, name: Name) -> bool:
        informer = self._watched[name][0].informer
        return not informer.synced and not informer.trouble

    def trouble(self, name: Name) -> str:
        """Why one cannot be read; empty: it can."""
        namespace, secret = name
        if (found := self._watched.get(name)) is None:
            waits = name in sorted(self._wanted)[: self._most]
            return (
                "" if waits else f"Secret {namespace}/{secret} is not read: there are more than {self._most}"
            )
        why = found[0].informer.trouble
        hint = "; see waypoint.credentialNamespaces of the chart" if "needs RBAC" in why else ""
        return f"Secret {namespace}/{secret} cannot be read: {why}{hint}" if why else ""

    def troubles(self) -> tuple[str, ...]:
        """A line for each that cannot be read."""
        return tuple(text for name in sorted(self._wanted) if (text := self.trouble(name)))

    def take_changed(self) -> bool:
        """Whether what is wrong is something else than when this was asked last."""
        before = self._told
        self._told = {name: text for name in self._wanted if (text := self.trouble(name))}
        return before != self._told

    def want(self, names: frozenset[Name]) -> None:
        """These are used from now on, and no others."""
        if names != self._wanted:
            self._wanted = names
            self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                names = sorted(self._wanted)[: self._most]
                for name in self._watched.keys() - {*names}:
                    self._end(name)
                for name in names:
                    if name not in self._watched:
                        self._begin(name, nursery)
                await self._changed.wait()
                self._changed = trio.Event()

    def _begin(self, name: Name, nursery: trio.Nursery) -> None:
        namespace, secret = name
        served = Served((SECRETS,), {"fieldSelector": f"metadata.name={secret}"})
        informer = Informer(served.candidates, self._rng, served.selectors, namespace=namespace)

        def take(changes: Sequence[Change]) -> None:
            self._take(served, changes)

        watcher, scope = Watcher(self._api, informer, take, self._tell), trio.CancelScope()
        self._watched[name] = watcher, scope
        nursery.start_soon(_run, watcher, scope)

    def _end(self, name: Name) -> None:
        _, scope = self._watched.pop(name)
        scope.cancel()
        self._take(Served((SECRETS,)), [Removal(name)])


async def _run(watcher: Watcher, scope: trio.CancelScope) -> None:
    with scope:
        await watcher.run()
