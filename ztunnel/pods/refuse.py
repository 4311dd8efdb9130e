"""Keeps pods that are wanted in the mesh and are not in it from talking in plaintext: nothing leaves or
reaches them, from the moment in which their namespace is found until they are enrolled or not wanted any
more.

A namespace is refused by what it is, also before it has addresses. It is let go when it is its pod's no more.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

import trio

from ztunnel.kernel.netlink import Addresses, look_up
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.processes import holder
from ztunnel.model.address import IPAddress
from ztunnel.pods.enroll import open_namespace
from ztunnel.pods.find import Finder
from ztunnel.pods.kubelet import Place
from ztunnel.redirect.attach import Redirection
from ztunnel.redirect.enroll import PodNetwork

HOLDER_SECONDS = 5.0
"""How long the answer counts."""


class Refusals:
    """The pods of one node that are refused, by uid."""

    def __init__(self, redirection: Redirection, find: Finder) -> None:
        self._redirection = redirection
        self._find = find
        self._refused: dict[str, tuple[Place, PodNetwork]] = {}

    def cookies(self) -> dict[str, int]:
        """The cookie of each one's namespace."""
        return {uid: network.cookie for uid, (_, network) in self._refused.items()}

    def __contains__(self, uid: object) -> bool:
        return uid in self._refused

    def refuse(
        self, uid: str, place: Place, home: Collection[IPAddress], spared: Collection[int]
    ) -> int | None:
        """Refuse the pod whose namespace is at `place`; harmless if it is refused already.

        Args:
            home: the addresses that the world knows it by.
            spared: cookies of namespaces that are others': a wrong path must not cut them off.

        Returns:
            The namespace's cookie; None where it is spared.

        Raises:
            OSError: it is not there, or the kernel refuses.
        """
        known, before = self._refused.get(uid, (None, None))
        if known is not None and before is not None and known.inode == place.inode:
            network = _network(before.netns, home)
        else:
            if before is not None:
                self.let_go(uid, ())
            netns = open_namespace(place)
            if netns.cookie in spared:
                netns.close()
                return None
            network = _network(netns, home)
        self._refused[uid] = place, network
        if before is None or network != before:
            self._redirection.refuse(network)
        return network.cookie

    def over(self, pending: Collection[str]) -> list[str]:
        """Those that are not `pending` any more, and those whose namespaces have gone."""
        return [
            uid
            for uid, (place, _) in self._refused.items()
            if uid not in pending or not self._find.exists(place)
        ]

    def let_go(self, uid: str, enrolled: Collection[int]) -> None:
        """Refuse it no more. Raises OSError, and may be called again.

        Args:
            enrolled: cookies of the pods that are in the mesh: they stay captured.
        """
        _, network = self._refused[uid]
        if network.cookie not in enrolled:
            self._redirection.withdraw(network)
        del self._refused[uid]
        network.netns.close()

    def close(self) -> None:
        """The process ends: they stay refused."""
        for _, network in self._refused.values():
            network.netns.close()
        self._refused.clear()


def _network(netns: NetworkNamespace, home: Collection[IPAddress]) -> PodNetwork:
    """As far as it can be seen: a namespace that is being set up has no addresses yet."""
    found = Addresses()
    with suppress(OSError):
        found = look_up(netns)
    return PodNetwork(netns.cookie, netns, None, None, found.everywhere, found.interfaces(home))


class Holders:
    """Which processes hold ports of ours; looked for in a thread, and not at every question."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[float, str]] = {}

    async def find(self, path: str, port: int) -> str:
        """As `kernel.processes.holder`."""
        now = trio.current_time()
        self._known = {key: seen for key, seen in self._known.items() if seen[0] > now}
        if (path, port) not in self._known:
            who = await trio.to_thread.run_sync(holder, path, port)
            self._known[path, port] = now + HOLDER_SECONDS, who
        return self._known[path, port][1]
