"""Holds one pod that is in the mesh, or was until lately: who takes up what comes in on its listeners, the
certificate that is kept for it, and what has to end when it is gone."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import trio

from ztunnel.errors import Drained
from ztunnel.flow.accept import Acceptor
from ztunnel.identity.rotate import Certificates
from ztunnel.inbound.accept import Inbound, PlainAcceptor
from ztunnel.inbound.serve import Handshakes
from ztunnel.model.identity import SpiffeId
from ztunnel.outbound.accept import Outbound, OutboundAcceptor
from ztunnel.pods.enroll import Enrolled, close, release, withdraw
from ztunnel.pods.find import inode_at


@dataclass(frozen=True, slots=True)
class Ways:
    """What an enrolled pod is served by."""

    outbound: Outbound
    inbound: Inbound
    handshakes: Handshakes
    certificates: Certificates


class Held:
    """One pod.

    Attributes:
        path: where its namespace was found.
        identity: the one whose certificate is wanted for it, None for none.
        grace: ends the time for which it still answers after it was removed.
    """

    def __init__(self, ways: Ways, enrolled: Enrolled, path: str) -> None:
        self._ways = ways
        self._acceptors: tuple[Acceptor, ...] = ()
        self.enrolled = enrolled
        self.path = path
        self.identity: SpiffeId | None = None
        self.grace: trio.CancelScope | None = None

    @property
    def inode(self) -> int:
        """That of its namespace."""
        return self.enrolled.network.netns.inode

    @property
    def exists(self) -> bool:
        """Whether its namespace is still where it was found."""
        return inode_at(self.path) == self.inode

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
        listeners = enrolled.listeners
        if self._acceptors or listeners is None:
            return
        takers = (
            (listeners.outbound, OutboundAcceptor(ways.outbound, enrolled.uid, enrolled.network).accepted),
            (listeners.inbound, PlainAcceptor(ways.inbound, enrolled).accepted),
            (listeners.hbone, partial(ways.handshakes.accepted, enrolled)),
        )
        acceptors: list[Acceptor] = []
        with ExitStack() as undo:
            undo.callback(withdraw, ways.outbound.redirection, enrolled)
            undo.callback(close, enrolled)
            for listener, accepted in takers:
                acceptors.append(Acceptor(ways.outbound.engine, listener, accepted))
                undo.callback(acceptors[-1].close)
            undo.pop_all()
        self._acceptors = tuple(acceptors)

    def refuse(self) -> None:
        """Take up nothing new; its peers are asked to open no more tunnels. What lives goes on."""
        self.enrolled.serving = False
        for acceptor in self._acceptors:
            acceptor.close()
        self._ways.handshakes.drain(self.enrolled.uid)

    def go_on(self) -> None:
        """It was removed, and is wanted again."""
        grace, self.grace = self.grace, None
        if grace is not None:
            grace.cancel()

    def stop_listening(self) -> None:
        """From now on it does not answer on our ports, and no certificate is kept for it."""
        self.go_on()
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors = ()
        close(self.enrolled)
        self.want(None)

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

    def show(self, state: str) -> dict[str, object]:
        """For the configuration dump."""
        return {
            "state": state,
            "netns": self.path,
            "addresses": [str(ip) for ip in self.enrolled.network.addresses],
            "connections": {"inbound": len(self._ways.inbound.live.of(self.enrolled.uid))},
        }
