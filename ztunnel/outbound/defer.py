"""Defers a captured call's accept until the far end has answered, so that connect() tells what that said.

The kernel holds the application's SYN and tells us. Where the far end answers we send the SYN on, and it
reaches our listener; where not, what makes connect() fail. An application that waits no longer ends its call.

    told ── open ──> sent on ── accepted ──> the call has its socket
      │                 └─ not accepted within a second ──> sent again
      ├─ fail ──> refused, by a reset or an ICMP error
      └─ gave up ──> the call is aborted
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from select import EPOLLIN
from typing import Final, Protocol

from ztunnel.errors import ConnectionFailed, Drained, GaveUp, HandedOver, Unreachable
from ztunnel.flow.engine import Engine
from ztunnel.flow.flow import Counts
from ztunnel.flow.held import Share
from ztunnel.flow.splice import OnEnd, Splice, close_with_reset, splice
from ztunnel.kernel.inject import Injector
from ztunnel.model.address import ip_text
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.redirect.held import HeldCall
from ztunnel.redirect.syn import answer, ends_of, whole

_PER_ROUND: Final = 8
"""Calls that are taken up in one round of the engine, some 2 ms: others have their turn between them."""

_AGAIN_SECONDS: Final = 1.0
_MOST_SENT: Final = 5
"""A SYN that is sent on is lost where our backlog is full; the kernel sends one six times by default."""

OnOpen = Callable[[socket.socket], None]


def _nobody(count: int) -> None:
    """Nobody takes connections up now."""


class Caller(Protocol):
    """A call that waits (`connect.Call`)."""

    opener: socket.socket | None
    deferred: Deferred | None

    def abort(self, error: ConnectionFailed) -> None: ...


class Deferred:
    """One connect() that waits."""

    __slots__ = ("_connects", "_on_open", "caller", "ends", "held", "sent", "sent_at")

    def __init__(self, connects: Connects, held: HeldCall) -> None:
        self._connects = connects
        self._on_open: OnOpen | None = None
        self.held = held
        self.ends = ends_of(held.syn)
        self.caller: Caller | None = None
        self.sent = 0
        self.sent_at = 0.0

    def open(self, on_open: OnOpen) -> None:
        """The far end has answered: let connect() succeed. `on_open(socket)` follows, unless the call is
        aborted before."""
        self._on_open = on_open
        if not self.sent:
            self._connects.send_on(self)

    def fail(self, error: int) -> None:
        """Let connect() fail with this errno. Where it has succeeded already, the application gets a
        reset."""
        self.caller = None
        self._connects.refuse(self, error)

    def accepted(self, opener: socket.socket) -> None:
        """Its connection has come."""
        caller, self.caller = self.caller, None
        on_open, self._on_open = self._on_open, None
        if caller is None:
            close_with_reset(opener)
            return
        caller.deferred = None
        if on_open is not None:
            on_open(opener)
        else:
            caller.opener = opener

    def gave_up(self) -> None:
        """The application waits no longer."""
        caller, self.caller = self.caller, None
        if caller is not None:
            caller.deferred = None
            caller.abort(GaveUp("the application closed before the other end had answered"))

    def hand_over(self) -> None:
        """A successor makes its call: here it ends, and the application goes on waiting."""
        caller, self.caller = self.caller, None
        if caller is not None:
            caller.deferred = None
            caller.abort(HandedOver())

    def end(self, error: ConnectionFailed) -> None:
        """Its call is not made, whoever waits."""
        if self.caller is not None:
            self.caller.abort(error)


class Connects:
    """The connects of one pod that wait.

    Attributes:
        accept: takes up to so many connections from the pod's listener, those that are there by now.
    """

    def __init__(self, engine: Engine, network: PodNetwork, limit: int) -> None:
        self._engine = engine
        self._injector = Injector(network.netns)
        self._limit = limit
        self._waiting: dict[bytes, Deferred] = {}
        self._sent: dict[bytes, Deferred] = {}
        self._by_ends: dict[bytes, Deferred] = {}
        self._looks = False
        self._closed = False
        self._let_in = 0
        self.accept: Callable[[int], None] = _nobody

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether no more can wait."""
        return len(self._waiting) >= self._limit

    def close(self) -> None:
        """Nobody is answered any more: who waits is refused."""
        for deferred in tuple(self._waiting.values()):
            deferred.end(Drained("the pod is served no more"))
        self._closed = True
        self.accept = _nobody
        self._injector.close()

    def let_in(self) -> bool:
        """Who waits need not wait: what cannot be reached is told by a reset. Whether there was anybody, who
        is about to be accepted."""
        for deferred in self._waiting.values():
            if not deferred.sent:
                self.send_on(deferred)
        return bool(self._waiting)

    @property
    def expects(self) -> bool:
        """Whether somebody was let in, and has not been accepted yet."""
        return bool(self._sent)

    def hand_over(self) -> list[HeldCall]:
        """Who waits, for a successor that makes their calls."""
        waiting = list(self._waiting.values())
        self._waiting.clear()
        self._sent.clear()
        self._by_ends.clear()
        for deferred in waiting:
            deferred.hand_over()
        return [deferred.held for deferred in waiting]

    def add(self, held: HeldCall) -> Deferred:
        """It waits from now on."""
        deferred = self._waiting[held.caller] = Deferred(self, held)
        self._by_ends[deferred.ends] = deferred
        return deferred

    def take(self, caller: bytes) -> Deferred | None:
        """It waits no longer."""
        self._sent.pop(caller, None)
        deferred = self._waiting.pop(caller, None)
        if deferred is not None:
            self._by_ends.pop(deferred.ends, None)
        return deferred

    def take_from_syn(self, syn: bytes) -> Deferred | None:
        """The same, of the call whose SYN that is; None where there is none, or the SYN is not plain."""
        ends = ends_of(syn)
        deferred = self._by_ends.get(ends) if ends else None
        return self.take(deferred.held.caller) if deferred is not None else None

    def send_on(self, deferred: Deferred) -> None:
        """Send its SYN on."""
        deferred.sent += 1
        deferred.sent_at = self._engine.now
        self._sent[deferred.held.caller] = deferred
        if self._inject(deferred, whole(deferred.held.syn)):
            # Its handshake is over by now: within a pod a packet has arrived when sending it returns.
            if not self._let_in:
                self._engine.afterwards(self._accept)
            self._let_in += 1
        if not self._looks:
            self._looks = True
            self._engine.after(_AGAIN_SECONDS, self._look)

    def _accept(self) -> None:
        count, self._let_in = self._let_in, 0
        self.accept(count)

    def refuse(self, deferred: Deferred, error: int) -> None:
        """Send what makes it fail. One that was sent on may be about to be accepted: it is reset then."""
        if not deferred.sent:
            self.take(deferred.held.caller)
            self._answer(deferred, answer(deferred.held.syn, error))

    def _answer(self, deferred: Deferred, packet: bytes, left: int = _MOST_SENT) -> None:
        """Where it cannot be sent now (no descriptor is left), it is tried again: somebody waits for it."""
        if not self._inject(deferred, packet) and left:
            self._engine.after(_AGAIN_SECONDS, partial(self._answer, deferred, packet, left - 1))

    def _look(self) -> None:
        """Send again what was not accepted."""
        self._looks = False
        for deferred in tuple(self._sent.values()):
            if self._engine.now - deferred.sent_at < _AGAIN_SECONDS:
                continue
            if deferred.sent < _MOST_SENT:
                self.send_on(deferred)
            else:
                self.take(deferred.held.caller)
                deferred.gave_up()
        if self._sent and not self._looks:
            self._looks = True
            self._engine.after(_AGAIN_SECONDS, self._look)

    def _inject(self, deferred: Deferred, packet: bytes) -> bool:
        """Whether the pod's kernel has taken it, or nobody waits in the pod any more."""
        if self._closed:
            return True
        try:
            self._injector.send(packet, ip_text(deferred.held.peer.ip))
        except OSError:
            return False
        return True


class Joining:
    """A call that is carried to a socket of ours, as soon as the application's is here."""

    __slots__ = ("_counts", "_engine", "_on_end", "_share", "_splice", "_target")

    def __init__(
        self, engine: Engine, target: socket.socket, counts: Counts, on_end: OnEnd, share: Share | None = None
    ) -> None:
        """Takes over `target`."""
        self._engine = engine
        self._share = share
        self._target: socket.socket | None = target
        self._counts = counts
        self._on_end = on_end
        self._splice: Splice | None = None

    def opened(self, opener: socket.socket) -> None:
        """The application's socket has come; takes it over."""
        target, self._target = self._target, None
        assert target is not None
        try:
            self._splice = splice(self._engine, opener, target, self._counts, self._on_end, self._share)
        except OSError as error:
            for end in (opener, target):
                close_with_reset(end)
            self._on_end(Unreachable(f"the connection cannot be carried: {error}"))

    def abort(self, error: ConnectionFailed) -> None:
        """End it now, both sides reset. Nothing happens if it has ended already."""
        target, self._target = self._target, None
        if self._splice is not None:
            self._splice.abort(error)
        elif target is not None:
            close_with_reset(target)
            self._on_end(error)


class Taker(Protocol):
    """Whoever takes up the calls of one pod (`accept.OutboundAcceptor`)."""

    def held(self, held: HeldCall) -> None: ...


class Kernel(Protocol):
    """Where the kernel tells of calls that wait (`redirect.observe.HeldCalls`)."""

    @property
    def fd(self) -> int: ...

    def pull(self, limit: int) -> list[HeldCall]: ...

    def hold(self, since_ns: int) -> None: ...


class WaitingCalls:
    """Those of all pods of the node. `since_ns`: by which the kernel knows us; 0 while calls do not wait."""

    def __init__(self, engine: Engine, kernel: Kernel, takers: Mapping[int, Taker]) -> None:
        """`takers` by the cookie of the pod's namespace."""
        self._engine = engine
        self._kernel = kernel
        self._takers = takers
        self.since_ns = 0

    def watch(self, since_ns: int) -> None:
        """Calls wait from now on; `since_ns` is CLOCK_MONOTONIC, or a predecessor's who has handed over what
        it was told. Raises OSError."""
        self._engine.watch(self._kernel.fd, EPOLLIN, self._ready, lambda bug: None)
        self._kernel.hold(since_ns)
        self.since_ns = since_ns

    def stop(self) -> None:
        """Take no more reports: they keep for whoever comes after us."""
        if self.since_ns:
            self._engine.unwatch(self._kernel.fd)
            self.since_ns = 0

    def take(self, calls: Iterable[HeldCall]) -> None:
        """Take up calls as the kernel tells of them, or a predecessor. Those of pods that nobody serves are
        left."""
        for held in calls:
            taker = self._takers.get(held.cookie)
            if taker is not None:
                taker.held(held)

    def _ready(self, mask: int) -> None:
        self.take(self._kernel.pull(_PER_ROUND))
