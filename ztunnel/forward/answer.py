"""Answers what the kernel asks about connections that pods only forward: lets them pass, or resets them.

```
first packet ─ dropped, told ─> judged ─ allowed: the kernel is told; the next SYN passes (1 s later)
                                       └ refused: reset, as by the one who was called; a line, a count
a change of the world voids what the kernel was told: the next packet of each connection asks again
```
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from select import EPOLLIN

from ztunnel.errors import ConnectionFailed, NoDestination
from ztunnel.flow.engine import Engine
from ztunnel.forward.decision import journey_of, judge_forwarded
from ztunnel.forward.segment import resets
from ztunnel.redirect.attach import Redirection
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.redirect.passages import Forwarded
from ztunnel.state.hold import Hold
from ztunnel.telemetry.figures import Figures, Tally
from ztunnel.telemetry.report import Report

_AT_ONCE = 64
"""Answered in one go; the others keep until the next round."""


class Forwarding:
    """What all pods of the node forward."""

    def __init__(
        self,
        engine: Engine,
        redirection: Redirection,
        hold: Hold,
        report: Report,
        pods: Mapping[str, PodNetwork],
    ) -> None:
        """`pods` are the enrolled ones by uid, as they are now."""
        self._engine = engine
        self._redirection = redirection
        self._hold = hold
        self._report = report
        self._pods = pods
        self._tally = Tally(4)

    def register(self, figures: Figures) -> None:
        """Bring the figures to the register."""
        figures.counter(
            "ztunnel_forwarded_total",
            "Connections that a pod was to forward and that were judged: admitted inwards, or reset",
            self._tally.samples,
            ["namespace", "pod", "direction", "outcome"],
        )

    def watch(self) -> None:
        """From now on, in the engine."""
        self._engine.watch(self._redirection.forwards.records_fd, EPOLLIN, self._ready, self._abandon)

    def _ready(self, mask: int) -> None:
        for seen in self._redirection.forwards.records(_AT_ONCE):
            self._answer(seen)

    def _abandon(self, bug: BaseException) -> None:
        """A bug in one answer: the others are answered all the same."""

    def _answer(self, seen: Forwarded) -> None:
        found = next(((uid, pod) for uid, pod in self._pods.items() if pod.cookie == seen.cookie), None)
        if found is None:  # removed meanwhile, so not asked about any more
            return
        uid, network = found
        world = self._hold.world
        generation = self._redirection.generation(seen.cookie)
        local = world.workload(uid)
        try:
            if local is None:
                raise NoDestination("the workload has left the mesh")
            judge_forwarded(world, local, seen)
            self._redirection.forwards.admit(seen.cookie, seen.opener.ip, seen.called, generation)
        except ConnectionFailed as error:
            self._count(uid, seen, "refused")
            self._report.refuse(journey_of(world, local, seen), seen.opener, error)
            _reset(network, seen)
        else:
            self._count(uid, seen, "admitted")

    def _count(self, uid: str, seen: Forwarded, outcome: str) -> None:
        namespace, name = uid.split("/")[-2:]
        self._tally.add(namespace, name, "inbound" if seen.inwards else "outbound", outcome)


def _reset(network: PodNetwork, seen: Forwarded) -> None:
    """Tell both ends. Where that fails, they find out by their own timeouts."""
    family = socket.AF_INET if seen.called.ip.version == 4 else socket.AF_INET6
    try:
        with network.netns.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            for reset in resets(seen):
                raw.sendto(reset.packet, (str(reset.to.ip), 0))
    except OSError:
        pass
