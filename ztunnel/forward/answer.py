"""Answers what the kernel asks about connections that pods only forward: lets them pass, or resets them.

```
first packet ─ dropped, told ─> judged ─ allowed: the kernel is told, and the SYN sent on; where the pod's
                               │         interface does not let us, the next one passes, a second later
                               └ refused: reset, as by the one who was called; a line, a count
a change of the world voids what the kernel was told: the next packet of each connection asks again
```
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from select import EPOLLIN

from ztunnel.errors import ConnectionFailed, NoDestination
from ztunnel.flow.engine import Engine
from ztunnel.forward.decision import journey_of, judge_forwarded
from ztunnel.forward.segment import as_sent, resets
from ztunnel.kernel.wire import Wires
from ztunnel.model.address import Endpoint
from ztunnel.redirect.attach import Redirection
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.redirect.passages import Forwarded
from ztunnel.state.hold import Hold
from ztunnel.telemetry.figures import Figures, Tally
from ztunnel.telemetry.report import Report

_AT_ONCE = 64
"""Answered in one go; the others keep until the next round."""

_REMEMBERED = 1024


class Forwarding:
    """What all pods of the node forward.

    Attributes:
        wires: by which SYNs are sent on: the other ends are where this process is.
    """

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
        self.wires = Wires()
        self._sent: dict[tuple[Endpoint, Endpoint, int], None] = {}
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

    def stop(self) -> None:
        """A successor answers."""
        self._engine.unwatch(self._redirection.forwards.records_fd)

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
            if seen.whole:
                self._send_on(network, seen)

    def _send_on(self, network: PodNetwork, seen: Forwarded) -> None:
        """Once: where it is dropped again, something else is the matter, and its opener sends another."""
        key = seen.opener, seen.called, seen.sequence
        packet = as_sent(seen)
        if not packet or key in self._sent:
            return
        if len(self._sent) >= _REMEMBERED:
            del self._sent[next(iter(self._sent))]
        self._sent[key] = None
        with suppress(OSError):  # then the next SYN passes
            self.wires.send(network.netns, seen.interface, packet)

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
