"""Asks whether a proxy that is told to end is being replaced, or taken away for good: with its DaemonSet, or
from this node, which that does not select any more.

All look the same from inside: SIGTERM. In the first case its pods stay captured, for whoever comes next;
else nobody comes, and they have to be let go. A namespace that is deleted keeps its DaemonSets for as long as
pods are ending in it, so it is asked for as well. The right to read these two objects, and the metadata of
nodes, is all that it takes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import TYPE_CHECKING, Final

import trio

from ztunnel.errors import ConfigError
from ztunnel.kube.failure import ApiFailure, Request
from ztunnel.kube.placement import is_wanted
from ztunnel.kube.resource import NAMESPACES, NODES, Resource
from ztunnel.telemetry.export import Log

if TYPE_CHECKING:
    from ztunnel.kube.call import Api, Value

DAEMON_SETS = Resource("apps", "v1", "daemonsets", "DaemonSet")
ASK_SECONDS = 1.0
"""Between two questions. A namespace that is deleted takes some seconds to delete what is in it."""

ANSWERS = 2
"""In a row: a DaemonSet that is replaced (`kubectl replace --force`) is not there for a moment, nor is
anything in an API server that has just begun; and a permission that is gone is no mistake."""


class Fate(Enum):
    """What the API server says of the DaemonSet; `GONE`: also where it has no pod on this node any more;
    `SILENT`: nothing that counts."""

    STAYS = "stays"
    GONE = "gone"
    FORBIDDEN = "forbidden"
    SILENT = "silent"


def _in_cluster() -> AbstractAsyncContextManager[Api]:
    """The API server; its client is imported where there is a DaemonSet to ask for."""
    from ztunnel.kube.connect import open_api

    return open_api()


_UNINSTALLED: Final = "uninstalled"
_MOVED: Final = "the DaemonSet selects this node no more"


class Owner:
    """The DaemonSet of this proxy, `namespace/name`, on that node; empty where it has none.

    Attributes:
        reason: why it is gone.
    """

    def __init__(
        self,
        name: str,
        node: str,
        log: Log,
        api: Callable[[], AbstractAsyncContextManager[Api]] = _in_cluster,
    ) -> None:
        self.reason = _UNINSTALLED
        self._namespace, _, self._name = name.partition("/")
        self._node = node
        self._found: Value = {}
        self._log = log
        self._api = api
        self._allowed = False

    def __bool__(self) -> bool:
        return bool(self._name)

    async def try_out(self) -> None:
        """See whether it may be read: said now, not when it is needed."""
        if not self:
            return
        try:
            await self._get()
            await self._get_namespace()
        except (ApiFailure, ConfigError) as error:
            self._log.warn(
                "cannot tell an uninstall from an upgrade: pods stay captured then, until `ztunnel detach`",
                error=str(error),
            )
            return
        self._allowed = True
        try:
            await self._get_node()
        except (ApiFailure, ConfigError) as error:
            self._log.warn(
                "cannot tell whether the DaemonSet selects this node: where it does so no more, pods stay "
                "captured, until `ztunnel detach`",
                error=str(error),
            )

    async def gone(self) -> None:
        """Return when it is gone, or being deleted; never where it stays. While nobody answers, it stays.
        For a process that is told to end: then a permission that it had and has no more was uninstalled."""
        answers = 0
        while self:
            fate = await self.look()
            counts = fate is Fate.GONE or (fate is Fate.FORBIDDEN and self._allowed)
            answers = answers + 1 if counts else 0
            if answers >= ANSWERS:
                return
            await trio.sleep(ASK_SECONDS)
        await trio.sleep_forever()

    async def look(self) -> Fate:
        """Ask once: for the DaemonSet, and where that stays, for its namespace and this node."""
        fate, self.reason = await self._ask(self._get), _UNINSTALLED
        if fate is not Fate.STAYS:
            return fate
        self._allowed = True
        if await self._ask(self._get_namespace) is Fate.GONE:
            return Fate.GONE
        if await self._is_selected():
            return Fate.STAYS
        self.reason = _MOVED
        return Fate.GONE

    async def _is_selected(self) -> bool:
        """Whether the DaemonSet, as it was found, has a pod on this node. What is not answered counts as
        yes, and so does a node that is being deleted."""
        try:
            return is_wanted(self._found, await self._get_node())
        except (ApiFailure, ConfigError):
            return True

    async def _ask(self, get: Callable[[], Awaitable[Value]]) -> Fate:
        try:
            found = await get()
        except ApiFailure as error:
            if error.code == 404:
                return Fate.GONE
            return Fate.FORBIDDEN if error.code in (401, 403) else Fate.SILENT
        except ConfigError:  # the token is gone
            return Fate.SILENT
        return Fate.GONE if (found.get("metadata") or {}).get("deletionTimestamp") else Fate.STAYS

    async def _get_node(self) -> Value:
        async with self._api() as api:
            return await api.ask(Request("get", NODES, name=self._node))

    async def _get_namespace(self) -> Value:
        async with self._api() as api:
            return await api.ask(Request("get", NAMESPACES, self._namespace, self._namespace))

    async def _get(self) -> Value:
        async with self._api() as api:
            self._found = await api.ask(Request("get", DAEMON_SETS, self._namespace, self._name))
            return self._found
