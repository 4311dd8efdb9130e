"""Who serves this node's pods: this process, or by now its successor."""

from __future__ import annotations

import os
import time

import trio

from ztunnel.config import Connect
from ztunnel.errors import PeerError, Unsupported
from ztunnel.redirect.plan import Pins
from ztunnel.run.build import Node
from ztunnel.run.drain import refuse_new
from ztunnel.run.incumbent import Offer
from ztunnel.run.pages import Listeners

_REPLACED = "replaced by a successor"


class Succession:
    """The way of a node from serving to its end.

    Attributes:
        over: set once nothing new is taken up here any more.
        given: whether that is because a successor serves.
        settled: held while a successor is taking over.
    """

    def __init__(self, node: Node, pages: Listeners) -> None:
        self.over = trio.Event()
        self.given = False
        self.settled = trio.Lock()
        self._node = node
        self._pages = pages
        self._version = ""

    def refuse_new(self) -> None:
        """As `drain.refuse_new`, once, and not where a successor serves."""
        if self.over.is_set():
            return
        self.over.set()
        refuse_new(self._node)

    # A successor (`incumbent.Giver`).

    async def step_back(self) -> Offer:
        """Take up nothing new, and read nothing that the kernel reports. The lease is still ours.

        Raises:
            PeerError: another one has taken over.
        """
        node = self._node
        await self.settled.acquire()
        if self.given:
            self.settled.release()
            raise PeerError("another one serves by now")
        await node.pods.hold_back()
        self._version = _pinned_version(node)
        since_ns = node.waiting.since_ns
        node.waiting.stop()
        node.follower.hand_over()
        node.outside.hand_over()
        node.forwarding.stop()
        return Offer(node.pods.offered(), node.pods.hand_over_calls(), since_ns, self._pages.filenos())

    def step_up(self) -> None:
        """Nobody has taken over: serve as before. What a successor may have done meanwhile is done anew.

        Raises:
            Unsupported: other programs than ours run by now: only a new process knows them.
        """
        node = self._node
        if _pinned_version(node) != self._version:
            node.pods.hand_over()
            self.settled.release()
            raise Unsupported("a successor has loaded its programs and did not take over: start again")
        node.direct.begin_anew()
        node.addresses.begin_anew()
        node.pods.go_on()
        self.watch()
        self.settled.release()

    def hand_over(self, pages: bool) -> None:
        """A successor serves: renew no lease, teach nothing, close our copies of the listeners. Peers are
        asked to open no more tunnels with us."""
        node = self._node
        self.given = True
        self.over.set()
        node.direct.hand_over()
        node.addresses.hand_over()
        node.pods.hand_over()
        node.tunnels.leave(lambda key: True)
        node.reporting.readiness.pend(_REPLACED)
        if pages:
            self._pages.handed_over.set()
        self.settled.release()

    def watch(self, since_ns: int = 0) -> None:
        """Read what the kernel reports, and account for what lives. `since_ns`: of a predecessor that has
        handed over the calls that it was told of."""
        node = self._node
        with node.reporting.boundary():
            node.follower.resume()
            node.outside.resume()
        if node.settings.connect is Connect.DEFERRED:
            if not node.waiting.since_ns:
                node.waiting.watch(since_ns or time.monotonic_ns())
        else:
            node.redirection.held.hold(0)
        node.follower.watch()
        node.outside.watch()
        node.forwarding.watch()


def _pinned_version(node: Node) -> str:
    pins = node.machine.pins
    try:
        return os.readlink(Pins(pins).version) if pins is not None else ""
    except OSError:
        return ""
