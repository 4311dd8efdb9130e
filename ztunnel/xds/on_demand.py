"""Addresses that are asked for on demand, as they are met: which, for how long, and whether the answer has
come; sans I/O.

    unknown --awaits--> asked --received--> answered (somebody, or nobody) --expire--> forgotten

While an address is asked for, the control plane keeps it current, so what was answered holds, and costs
nothing to ask again. What is held is bounded: the address that was met the longest ago gives way. Who waits
does so for a second at most, and not at all without a control plane that answers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from ztunnel.model.address import IPAddress
from ztunnel.xds.pb import discovery_pb2
from ztunnel.xds.resource import ADDRESS, at_address

WAIT_SECONDS: Final = 1.0
"""How long an answer is waited for; ztunnel waits without an end (src/state.rs, `fetch_on_demand`)."""
IDLE_SECONDS: Final = 600.0
"""How long an address that is not met is asked for."""
MOST: Final = 4096
"""Addresses asked for at a time."""
_NEW_AT_ONCE: Final = 1000
"""New ones in a second: what callers make up is not to keep the control plane busy."""


def _nobody() -> None:
    """The default for `wake`."""


@dataclass(slots=True)
class _Asked:
    at: float
    met_at: float
    answered: bool = False


class OnDemand:
    """Those of one process, over all its streams.

    Attributes:
        wake: called when `take` has something.
        unanswered: how many were given up waiting for, or not asked for as there were too many.
    """

    def __init__(self, network: str) -> None:
        self.wake: Callable[[], None] = _nobody
        self.unanswered = 0
        self._network = network
        self._asked: OrderedDict[str, _Asked] = OrderedDict()
        self._new: dict[str, None] = {}
        self._forgotten: dict[str, None] = {}
        self._answers = False
        self._window = (0.0, 0)

    def __len__(self) -> int:
        return len(self._asked)

    # Whoever meets an address.

    def awaits(self, ip: IPAddress, now: float) -> bool:
        """Whether it is still to be said who is at an address that is not known: it is asked for if nobody
        has. False: whatever is known by now is all there is."""
        name = at_address(self._network, ip)
        asked = self._asked.get(name)
        if asked is None:
            if not self._answers:
                return False
            if not self._ask(name, now):
                self.unanswered += 1
                return False
            return True
        self._meet(name, asked, now)
        if asked.answered or not self._answers:
            return False
        if now - asked.at < WAIT_SECONDS:
            return True
        asked.answered = True  # late; nobody waits for it again
        self.unanswered += 1
        return False

    def meet(self, ip: IPAddress, now: float) -> None:
        """An address that is known was met."""
        if self._asked:
            name = at_address(self._network, ip)
            if (asked := self._asked.get(name)) is not None:
                self._meet(name, asked, now)

    def expire(self, now: float) -> None:
        """Ask no more for what was not met for long."""
        while self._asked and now - next(iter(self._asked.values())).met_at >= IDLE_SECONDS:
            self._forget()

    def _meet(self, name: str, asked: _Asked, now: float) -> None:
        asked.met_at = now
        self._asked.move_to_end(name)

    def _ask(self, name: str, now: float) -> bool:
        begun, count = self._window
        if now - begun >= 1.0:
            begun, count = now, 0
        if count >= _NEW_AT_ONCE:
            return False
        self._window = begun, count + 1
        if len(self._asked) >= MOST:
            self._forget()
        self._asked[name] = _Asked(now, now)
        self._forgotten.pop(name, None)
        self._new[name] = None
        self.wake()
        return True

    def _forget(self) -> None:
        name, _ = self._asked.popitem(last=False)
        if name in self._new:
            del self._new[name]
        else:
            self._forgotten[name] = None
            self.wake()

    # The stream.

    def connect(self) -> list[str]:
        """A new stream begins: all names to ask for on it."""
        self._new.clear()
        self._forgotten.clear()
        self._answers = False
        return list(self._asked)

    def served(self) -> None:
        """The control plane at the other end is one of ours, which may send no more than is asked for."""
        self._answers = True

    def disconnect(self) -> None:
        """There is nobody who would answer."""
        self._answers = False

    def take(self) -> discovery_pb2.DeltaDiscoveryRequest | None:
        """What has to be asked for, or not any more, since the last time; None: nothing."""
        if not self._answers or not (self._new or self._forgotten):
            return None
        request = discovery_pb2.DeltaDiscoveryRequest(
            type_url=ADDRESS,
            resource_names_subscribe=self._new,
            resource_names_unsubscribe=self._forgotten,
        )
        self._new, self._forgotten = {}, {}
        return request

    def received(self, resources: Iterable[discovery_pb2.Resource], removed: Iterable[str]) -> None:
        """What of a response of addresses is an answer."""
        if not self._asked:
            return
        for name in removed:
            self._answer(name)
        for resource in resources:
            for alias in resource.aliases:
                self._answer(alias)

    def _answer(self, name: str) -> None:
        if (asked := self._asked.get(name)) is not None:
            asked.answered = True
