"""Keeps enrolled pods up to date: their account, addresses and what they may forward; and repairs what others
have changed in their namespaces."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final, NamedTuple

import trio

from ztunnel.kernel.istio import has_rules
from ztunnel.kernel.sockets import Listening
from ztunnel.model.address import IPAddress
from ztunnel.model.workload import Workload
from ztunnel.pods.enroll import let_forward, readdress
from ztunnel.pods.hold import Held, Ways
from ztunnel.pods.lifecycle import OTHER_MESH
from ztunnel.pods.listen import CannotEnroll
from ztunnel.redirect.layout import ListenerKind
from ztunnel.telemetry.export import Log
from ztunnel.telemetry.readiness import Readiness
from ztunnel.telemetry.repairs import Repairs

SWEEP_SECONDS = 5.0
"""How often everything in a pod's namespace is looked at, whether the kernel has told of a change or not: of
sysctls it tells nothing."""


TWO_MESHES: Final = (
    f"{OTHER_MESH}: Istio's CNI agent has put its rules into the pod while it is in this one (chains "
    f"ISTIO_...), "
    "and plaintext from outside does not reach it: keep that agent off this node"
)


class Reports(NamedTuple):
    """Where pods tell how they fare."""

    log: Log
    readiness: Readiness
    repairs: Repairs


class Upkeep:
    """What enrolled pods need while they stay."""

    def __init__(self, ways: Ways, reports: Reports, held: Mapping[str, Held], listening: Listening) -> None:
        """`held`: the enrolled pods by uid, kept by `serve`."""
        self._ways = ways
        self._redirection = ways.redirection
        self._networks = ways.networks
        self._log, self._repairs = reports.log, reports.repairs
        self._held = held
        self._listening = listening
        self._look_at = 0.0

    async def refresh(self, wanted: Mapping[str, Workload], parting: Mapping[str, Held]) -> dict[str, str]:
        """Follow what has changed of the pods. Others have the thread between two pods, and within each look
        at one: that is some hundred system calls.

        Args:
            parting: pods that are removed and still have connections.

        Returns:
            What could not be done, by uid.
        """
        failed: dict[str, str] = {}
        for uid, held in tuple(self._held.items()):
            workload = wanted.get(uid)
            if workload is not None and workload.identity != held.identity:
                held.want(workload.identity)
                self._ways.handshakes.drain(uid)
            if workload is not None and workload.forwards != held.enrolled.network.forwards:
                try:
                    self._let_forward(uid, held, workload.forwards)
                except OSError as error:
                    failed[uid] = f"what it forwards cannot be left alone, or not any more: {error}"
                await trio.lowlevel.checkpoint()
            if workload is not None and workload.addresses:
                self._rehome(held, frozenset(workload.addresses))
        now = trio.current_time()
        sweep = now >= self._look_at
        if sweep:
            self._look_at = now + SWEEP_SECONDS
        for uid, held in (*self._held.items(), *parting.items()):
            if sweep or held.stale or held.trouble:
                await self._look(uid, held)
                await trio.lowlevel.checkpoint()
        failed.update((uid, held.trouble) for uid, held in self._held.items() if held.trouble)
        return failed

    async def _look(self, uid: str, held: Held) -> None:
        """See what has become of a pod's namespace, and repair what others have changed in it."""
        held.trouble, before = "", held.others
        try:
            for look in (held.look, partial(held.look_at_capture, self._listening)):
                for what in look():
                    self._repairs.repaired(what, uid)
                await trio.lowlevel.checkpoint()
            if held is self._held.get(uid):
                self._readdress(uid, held)
            for text in set(held.others).difference(before):
                self._log.warn("another program", pod=uid, reason=text)
            if held.enrolled.serving and has_rules(held.enrolled.network.netns):
                held.trouble = TWO_MESHES
        except (CannotEnroll, OSError) as error:
            held.trouble = f"it cannot be repaired: {error}"

    def _rehome(self, held: Held, home: frozenset[IPAddress]) -> None:
        """The world knows the pod by other addresses than before: by any, if it has just started."""
        if home != held.enrolled.home and not home.isdisjoint(held.enrolled.network.addresses):
            held.enrolled.home = home
            held.stale = True

    def _let_forward(self, uid: str, held: Held, forwards: bool) -> None:
        let_forward(self._redirection, held.enrolled, forwards)
        self._networks[uid] = held.enrolled.network
        self._log.info("pod forwards", pod=uid, allowed=forwards)

    def _readdress(self, uid: str, held: Held) -> None:
        before = held.enrolled.network
        gone = readdress(self._redirection, held.enrolled)
        network = held.enrolled.network
        if network is before:
            return
        others = (each.enrolled.network for each in self._held.values() if each is not held)
        for ip in gone.difference(*(each.addresses for each in others)):
            for kind in ListenerKind:
                self._redirection.no_listener(ip, kind)
        self._networks[uid] = network
        self._log.info("pod addresses changed", pod=uid, addresses=", ".join(map(str, network.addresses)))
