"""Holds one pod that is in the mesh, or was until lately: who takes up what comes in on its listeners, the
certificate that is kept for it, and what has to end when it is gone."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from select import EPOLLIN

import trio

from ztunnel.errors import Drained
from ztunnel.flow.accept import Accepted, Acceptor
from ztunnel.identity.rotate import Certificates
from ztunnel.inbound.accept import Inbound, PlainAcceptor
from ztunnel.inbound.serve import Handshakes
from ztunnel.kernel.netlink import NamespaceEvents
from ztunnel.kernel.sockets import DUAL_STACK, Listening, keep_syns
from ztunnel.model.identity import SpiffeId
from ztunnel.outbound.accept import Outbound, OutboundAcceptor
from ztunnel.pods.enroll import Enrolled, close, machine_behind, release, relisten, remind, withdraw
from ztunnel.pods.find import Finder
from ztunnel.pods.kubelet import Place
from ztunnel.pods.listen import CannotEnroll, lost_listeners
from ztunnel.pods.prepare import WayBlocked
from ztunnel.redirect.attach import Redirection
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.redirect.held import HeldCall
from ztunnel.redirect.layout import PodFlag
from ztunnel.state.world import World

_PAUSE_SECONDS = 0.1
"""Between two looks at a namespace in which something changes all the time."""


def _ignore() -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Ways:
    """What an enrolled pod is served by."""

    outbound: Outbound
    inbound: Inbound
    handshakes: Handshakes
    certificates: Certificates

    @property
    def redirection(self) -> Redirection:
        """By which our programs send us what pods call, and what calls them."""
        assert self.outbound.redirection is not None
        return self.outbound.redirection

    @property
    def networks(self) -> dict[str, PodNetwork]:
        """The enrolled pods by uid, for direct flows."""
        assert self.outbound.direct is not None
        return self.outbound.direct.pods


class Held:
    """One pod.

    Attributes:
        place: where its namespace was found.
        identity: the one whose certificate is wanted for it, None for none.
        grace: ends the time for which it still answers after it was removed.
        stale: whether something has changed in its namespace since `look`.
        trouble: what is not as it has to be and could not be repaired.
        others: programs of others in its namespace that make a difference to us.
        machine: the interface to a virtual machine behind it; empty where none was seen.
        was_known: whether the kernel redirected or refused it before this process enrolled it.
    """

    def __init__(
        self,
        ways: Ways,
        enrolled: Enrolled,
        place: Place,
        find: Finder,
        stirred: Callable[[], None] = _ignore,
    ) -> None:
        """`stirred` is called when it has become stale."""
        self._ways = ways
        self._acceptors: tuple[Acceptor, ...] = ()
        self._outbound: OutboundAcceptor | None = None
        self._events: NamespaceEvents | None = None
        self._watched = False
        self._stirred = stirred
        self.stale = False
        self.trouble = ""
        self.others: list[str] = []
        self.was_known = False
        self.machine = ""
        self.enrolled = enrolled
        self.place = place
        self._find = find
        self.identity: SpiffeId | None = None
        self.grace: trio.CancelScope | None = None

    @property
    def inode(self) -> int:
        """That of its namespace."""
        return self.enrolled.network.netns.inode

    @property
    def exists(self) -> bool:
        """Whether its namespace is still the pod's."""
        return self._find.exists(self.place)

    def outlives(self, world: World) -> bool:
        """Whether it was deleted, by force, and still runs. It stays in the mesh, where nobody knows it, and
        so is refused, until its last process has ended."""
        return bool(self.place.pod) and world.workload(self.enrolled.uid) is None and self.exists

    @property
    def idle(self) -> bool:
        """Whether it does not answer any more, and its last proxied connection has ended."""
        return not self._acceptors and not self._ways.inbound.live.of(self.enrolled.uid)

    def listen(self) -> None:
        """Take up what comes in on the listeners, unless that goes on already.

        Raises:
            OSError: the engine cannot watch them; then the pod is removed and does not answer.
        """
        enrolled, ways = self.enrolled, self._ways
        if self._acceptors or enrolled.listeners is None:
            return
        with ExitStack() as undo:
            undo.callback(withdraw, ways.redirection, enrolled)
            self._accept()
            undo.pop_all()
        self._watch()

    def _accept(self) -> None:
        """Raises OSError; then it does not answer."""
        enrolled, ways = self.enrolled, self._ways
        listeners = enrolled.listeners
        if listeners is None:
            return
        if self._outbound is None:
            self._outbound = OutboundAcceptor(ways.outbound, enrolled.uid, enrolled.network)
        queues = [(listener, PlainAcceptor(ways.inbound, enrolled)) for listener in listeners.inbound]
        takers: tuple[tuple[socket.socket, Accepted, Callable[[], bool] | None], ...] = (
            (listeners.outbound, self._outbound.accepted, None),
            (listeners.hbone, partial(ways.handshakes.accepted, enrolled), None),
            *((listener, queue.accepted, queue.full) for listener, queue in queues),
        )
        acceptors: list[Acceptor] = []
        with ExitStack() as undo:
            undo.callback(close, enrolled)
            keep_syns(listeners.outbound)
            for listener, accepted, full in takers:
                acceptors.append(Acceptor(ways.outbound.engine, listener, accepted, self._spoiled, full))
                undo.callback(acceptors[-1].close)
            undo.pop_all()
        self._acceptors = tuple(acceptors)
        self._outbound.take_from(acceptors[0].accept_now)

    # A successor.

    def hold_back(self) -> None:
        """Take up nothing for now, but who is on the way to us."""
        if self._acceptors and self._outbound is not None and self._outbound.expects:
            self._acceptors[0].accept_waiting()
        for acceptor in self._acceptors:
            acceptor.hold_back()

    def accept_again(self) -> None:
        """Undo `hold_back`."""
        for acceptor in self._acceptors:
            acceptor.go_on()

    def hand_over_calls(self) -> list[HeldCall]:
        """The calls that wait, for a successor: here they are over."""
        return self._outbound.hand_over() if self._outbound is not None else []

    # What others change.

    def look(self) -> list[str]:
        """Look whether all that enrolling has made in the namespace is there, and make what is missing.

        Returns:
            What was repaired: `IPv4 rule`, the name of a sysctl.

        Raises:
            CannotEnroll: somebody in the pod is in the way. OSError: the kernel refuses. What could be made
                is made, and the pod stays captured.
        """
        self.stale = False
        if self._events is not None:
            self._events.drain()
        try:
            return self.enrolled.preparation.ensure(self.enrolled.network.uplinks)
        except WayBlocked as error:
            raise CannotEnroll(str(error)) from error
        finally:
            self._watch_again()

    def look_at_capture(self, listening: Listening = DUAL_STACK) -> list[str]:
        """Look whether the pod is captured, and by listeners that live, and see to what is missing.

        Returns:
            What was repaired: `listener hbone`, `pod entry`.

        Raises:
            CannotEnroll, OSError: as `look`.
        """
        made = self._relisten(listening)
        self.machine = machine_behind(self.enrolled.network.netns)
        if self.enrolled.serving:
            made += remind(self._ways.redirection, self.enrolled)
            self.others = self._ways.redirection.neighbours(self.enrolled.network)
        return made

    def _relisten(self, listening: Listening) -> list[str]:
        lost = lost_listeners(self.enrolled.listeners) if self.enrolled.serving else []
        if lost:
            self._stop_accepting()
            relisten(self._ways.redirection, self.enrolled, listening)
            self._accept()
        return [f"listener {port}" for port in lost]

    def _watch(self) -> None:
        """Without a descriptor for it changes are found by looking now and then."""
        if self._events is None:
            with suppress(OSError):
                self._events = NamespaceEvents(self.enrolled.network.netns)
        self._resume()

    def _watch_again(self) -> None:
        if not self._watched:
            self._ways.outbound.engine.after(_PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        if self._events is not None and not self._watched:
            self._ways.outbound.engine.watch(
                self._events.fileno(), EPOLLIN, self._event, lambda bug: self._unwatch()
            )
            self._watched = True

    def _event(self, mask: int) -> None:
        """Not watched until it was looked at: a flood of events in one pod costs others nothing."""
        self._unwatch()
        self._spoiled()

    def _spoiled(self) -> None:
        self.stale = True
        self._stirred()

    def _unwatch(self) -> None:
        if self._events is not None and self._watched:
            self._watched = False
            self._ways.outbound.engine.unwatch(self._events.fileno())

    # Its end.

    def let_in(self) -> None:
        """It is about to be removed: who waits to be let in is."""
        if self._outbound is not None:
            self._outbound.let_in()

    def refuse(self) -> None:
        """Take up nothing new; its peers are asked to open no more tunnels. What lives goes on, and so does
        who waits to be let in."""
        self.enrolled.serving = False
        waits = self._outbound is not None and self._outbound.let_in()
        for acceptor in self._acceptors:
            if waits:
                waits = False  # the first is the way out
                self._ways.outbound.engine.after(_PAUSE_SECONDS, acceptor.close)
            else:
                acceptor.close()
        self._ways.handshakes.drain(self.enrolled.uid)

    def go_on(self) -> None:
        """It was removed, and is wanted again."""
        grace, self.grace = self.grace, None
        if grace is not None:
            grace.cancel()

    async def linger(self, scope: trio.CancelScope, seconds: float, is_refused: Callable[[], bool]) -> None:
        """It was removed: for so long it still answers, unless `scope` is cancelled. Then the kernel forgets
        it, but for one that is refused by now."""
        with scope:
            while True:
                await trio.sleep(seconds)
                if is_refused() or self._is_forgotten():
                    break
        if not scope.cancel_called:
            self.stop_listening()
            self._stirred()

    def _is_forgotten(self) -> bool:
        try:
            withdraw(self._ways.redirection, self.enrolled)
        except OSError as error:
            self.trouble = f"cannot be removed: {error}"
            return False
        return True

    def stop_listening(self) -> None:
        """From now on it does not answer on our ports, and no certificate is kept for it."""
        self.go_on()
        self._stop_accepting()
        if self._outbound is not None:
            self._outbound.close()
            self._outbound = None
        self._unwatch()
        if self._events is not None:
            self._events.close()
            self._events = None
        self.want(None)

    def _stop_accepting(self) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors = ()
        close(self.enrolled)

    def want(self, identity: SpiffeId | None) -> None:
        """Have a certificate for this identity instead of the one before."""
        certificates = self._ways.certificates
        if identity is not None:
            certificates.want(identity)
        if self.identity is not None:
            certificates.forget(self.identity)
        self.identity = identity

    def end(self) -> None:
        """End all that is left of a pod whose namespace is gone: its connections lead nowhere."""
        if self.grace is not None:
            self._is_forgotten()
        self.stop_listening()
        ways, uid = self._ways, self.enrolled.uid
        gone = Drained("the pod has gone")
        for live in ways.inbound.live.of(uid):
            live.abort(gone)
        ways.handshakes.abort(uid, gone)
        addresses = self.enrolled.network.addresses
        ways.outbound.tunnels.leave(lambda key: key.source_ip in addresses)
        release(self.enrolled)

    def let_go(self) -> None:
        """The process ends: the pod stays as it is, captured and without a proxy."""
        self.stop_listening()
        self.enrolled.network.netns.close()

    def let_go_removed(self) -> None:
        """The process ends, and the pod was removed: nobody else undoes what is left of that, unless a
        successor has enrolled it again."""
        redirection, network = self._ways.redirection, self.enrolled.network
        self.stop_listening()
        found = redirection.enrolled().get(network.cookie)
        if found is not None and not found.flags & PodFlag.LEAVING:
            network.netns.close()
            return
        with suppress(OSError):
            redirection.withdraw(network)
        release(self.enrolled)

    def show(self, state: str) -> dict[str, object]:
        """For the configuration dump."""
        return {
            "state": state,
            "netns": self.place.path,
            **({"reason": self.trouble} if self.trouble else {}),
            **({"otherPrograms": self.others} if self.others else {}),
            "addresses": [str(ip) for ip in self.enrolled.network.addresses],
            "connections": {"inbound": len(self._ways.inbound.live.of(self.enrolled.uid))},
        }
