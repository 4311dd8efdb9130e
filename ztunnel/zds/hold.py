"""Holds one pod that the agent has named: its listeners, who takes up what comes in, its certificate.

opened ── the world knows it: attached ──> served ── taken away: all that is open ends ──> gone
   └─ not within five seconds: what comes in is refused, until it does
"""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from typing import Final

from ztunnel.errors import Drained
from ztunnel.flow.accept import Acceptor
from ztunnel.flow.splice import close_with_reset
from ztunnel.inbound.accept import PlainAcceptor
from ztunnel.kernel.netlink import look_up
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.original import original_destination
from ztunnel.kernel.sockets import Listening
from ztunnel.model.address import Endpoint, IPAddress, OriginalDestination, PeerAddress
from ztunnel.model.connection import Direction
from ztunnel.model.identity import SpiffeId
from ztunnel.model.workload import Workload
from ztunnel.outbound.accept import OutboundAcceptor
from ztunnel.pods.enroll import pod_network
from ztunnel.pods.hold import Ways
from ztunnel.pods.lifecycle import NO_ADDRESSES
from ztunnel.pods.listen import CannotEnroll, Listeners, lost_listeners
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.redirect.layout import Recalled
from ztunnel.state.lookup import ILLEGAL_PORTS
from ztunnel.zds.listen import listen_for_names, listen_redirected, relay_names
from ztunnel.zds.message import Named
from ztunnel.zds.names import answer_of_the_mesh
from ztunnel.zds.relay import RELAY_PORT, NameRelay, NameServers

_REMEMBERED: Final = 1024
"""Destinations that are kept: applications call the same ones again and again."""

_OWN_PORTS: Final = ILLEGAL_PORTS | {RELAY_PORT}
_RECURSION: Final = "attempted recursive call to ourselves"
_MIGRATE: Final = "net.ipv4.tcp_migrate_req"
"""What waits at our listener when we close it goes to a successor's (Linux 5.14)."""


class RedirectedPod:
    """One pod. It is what sessions into it know of it (`inbound.accept.LocalPod`).

    Attributes:
        pod: as the agent has named it.
        uid: its workload's; "" while the world does not know it.
        network: its namespace, and its addresses as they are now.
        identity: the one whose certificate is wanted for it, None for none.
        serving: False once the agent has taken it away.
    """

    def __init__(
        self, ways: Ways, pod: Named, netns: NetworkNamespace, listening: Listening, names: NameServers | None
    ) -> None:
        """Begin to listen; takes over `netns` unless it raises. `names` are who is asked for names; None:
        nobody, as DNS is not captured.

        Raises:
            CannotEnroll: the namespace has no addresses, or a port is taken. OSError: the kernel refuses.
        """
        self._ways = ways
        self._listening = listening
        self.pod = pod
        self.uid = ""
        self.network = _network(pod, netns)
        self.identity: SpiffeId | None = None
        self.serving = True
        self._acceptors: tuple[Acceptor, ...] = ()
        self._outbound: OutboundAcceptor | None = None
        self._plain: PlainAcceptor | None = None
        self._recalled: dict[Endpoint, Recalled] = {}
        self._names = names
        self._relay: NameRelay | None = None
        self._by_tcp: socket.socket | None = None
        self._listeners: Listeners | None = None
        self._listen()
        with suppress(OSError):  # read-only in most containers; then a successor finds an empty backlog
            netns.write_sysctl(_MIGRATE, "1")

    def _listen(self) -> None:
        """Raises CannotEnroll, OSError: then nobody does."""
        netns, pod = self.network.netns, str(self.pod)
        with ExitStack() as undo:
            undo.callback(self._stop_listening)
            self._listeners = listen_redirected(netns, pod, self._listening)
            if self._names is not None:
                self._by_tcp = listen_for_names(netns, pod, self._listening)
                engine, shared = self._ways.outbound.engine, self._listening.shared
                self._relay = relay_names(engine, netns, pod, self._names, shared)
                self._relay.knows = self._answer
            undo.pop_all()

    def _answer(self, untrusted: bytes) -> bytes | None:
        """What the mesh says to a query of the pod."""
        return answer_of_the_mesh(self._ways.outbound.hold.world, self.pod.namespace, untrusted)

    # Whose it is.

    def attach(self, workload: Workload) -> None:
        """The world knows the pod as this workload: serve it."""
        if workload.uid != self.uid:
            self._detach()
            self.uid = workload.uid
            self._outbound = OutboundAcceptor(self._ways.outbound, self.uid, self.network)
            self._plain = PlainAcceptor(self._ways.inbound, self, original_destination)
        if workload.identity != self.identity:
            certificates = self._ways.certificates
            certificates.want(workload.identity)
            if self.identity is not None:
                certificates.forget(self.identity)
                self._ways.handshakes.drain(self.uid)
            self.identity = workload.identity
        self.accept()

    def accept(self) -> None:
        """Take up what comes in, unless that goes on already. Where the world does not know the pod, it is
        refused. Raises OSError."""
        listeners = self._listeners
        if self._acceptors or listeners is None:
            return
        engine, [inbound] = self._ways.outbound.engine, listeners.inbound
        takers = (
            (listeners.outbound, self._called, None),
            (listeners.hbone, self._tunnelled, None),
            (inbound, self._arrived, self._full),
        )
        for listener, accepted, full in takers:
            self._acceptors += (Acceptor(engine, listener, accepted, None, full),)
        if self._by_tcp is not None:
            self._acceptors += (Acceptor(engine, self._by_tcp, self._called),)

    # What comes in.

    def _called(self, opener: socket.socket, peer: PeerAddress) -> None:
        """The application has called somebody."""
        try:
            called = original_destination(opener)
        except OSError:
            opener.close()
            return
        outbound = self._outbound
        if outbound is None:
            self._refuse(opener, Direction.OUTBOUND, peer, called, self._unknown)
        elif called.port in _OWN_PORTS and self._is_own(called.ip):
            self._refuse(opener, Direction.OUTBOUND, peer, called, _RECURSION)
        else:
            recalled = self._recalled.get(called)
            if recalled is None:
                if len(self._recalled) >= _REMEMBERED:
                    self._recalled.clear()
                recalled = Recalled(OriginalDestination(called.ip, called.port), None)
                self._recalled[called] = recalled
            outbound.redirected(opener, peer, recalled)

    def _tunnelled(self, opener: socket.socket, peer: PeerAddress) -> None:
        """Another proxy has connected."""
        if self._outbound is None:
            self._refuse(opener, Direction.INBOUND, peer, None, self._unknown)
        else:
            self._ways.handshakes.accepted(self, opener, peer)

    def _arrived(self, opener: socket.socket, peer: PeerAddress) -> None:
        """Somebody has called the application in plaintext."""
        if self._plain is None:
            self._refuse(opener, Direction.INBOUND, peer, None, self._unknown)
        else:
            self._plain.accepted(opener, peer)

    def _full(self) -> bool:
        return self._plain is not None and self._plain.full()

    @property
    def _unknown(self) -> str:
        pod = self.pod
        who = f"{pod.service_account}.{pod.namespace} ({pod.name})"
        return f"failed to fetch information about local workload: {who}"

    def _is_own(self, ip: IPAddress) -> bool:
        return ip.is_loopback or ip.is_link_local or ip in self.network.addresses

    def _refuse(
        self, opener: socket.socket, direction: Direction, peer: PeerAddress, to: Endpoint | None, why: str
    ) -> None:
        with suppress(OSError):
            self._ways.outbound.report.deny_early(direction, peer, to or original_destination(opener), why)
        close_with_reset(opener)

    # Its upkeep.

    def look(self) -> list[str]:
        """See whether all that it needs is there, and make what is missing.

        Returns:
            What was repaired.

        Raises:
            CannotEnroll, OSError: what is missing cannot be made; it is tried again.
        """
        if not self.serving:
            return []
        before = self.network
        found = look_up(before.netns)
        if found.everywhere and set(found.everywhere) != set(before.addresses):
            self.network = pod_network(before.netns, before.addresses, found)
            if self._outbound is not None:
                self._outbound.close()
                self._outbound = OutboundAcceptor(self._ways.outbound, self.uid, self.network)
        lost = lost_listeners(self._listeners)
        if lost:
            self._stop_listening()
            self._listen()
            self.accept()
        return [f"listener {name}" for name in lost]

    # Its end.

    def stop(self) -> None:
        """Answer no more, and take up nothing new but who waits in a backlog. What lives goes on."""
        self.serving = False
        for acceptor in self._acceptors:
            acceptor.accept_waiting()
        self._stop_listening()
        self._ways.handshakes.drain(self.uid)

    def end(self, why: str) -> None:
        """The agent has taken it away, and its rules with it: without them nothing that is open can go on,
        as what an application sends does not come to us any more. So it ends, as in ztunnel."""
        self.serving = False
        gone = Drained(why)
        for live in self._ways.inbound.live.of(self.uid):
            live.abort(gone)
        for call in self._ways.outbound.calls:
            source = call.journey.source_workload if call.journey is not None else None
            if source is not None and source.uid == self.uid:
                call.abort(gone)
        self._ways.handshakes.abort(self.uid, gone)
        self.let_go()

    def let_go(self) -> None:
        """Let go of the namespace, and of what is made for the pod."""
        self._stop_listening()
        self._detach()
        own = self.network.addresses
        self._ways.outbound.tunnels.leave(lambda key: key.source_ip in own)
        if self.identity is not None:
            self._ways.certificates.forget(self.identity)
            self.identity = None
        self.network.netns.close()

    def _detach(self) -> None:
        if self._outbound is not None:
            self._outbound.close()
            self._outbound = None
        self._plain = None

    def _stop_listening(self) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors = ()
        listeners, self._listeners = self._listeners, None
        if listeners is not None:
            listeners.close()
        relay, self._relay = self._relay, None
        if relay is not None:
            relay.close()
        by_tcp, self._by_tcp = self._by_tcp, None
        if by_tcp is not None:
            by_tcp.close()

    def show(self) -> dict[str, object]:
        """For the configuration dump, as ztunnel shows it."""
        pod = self.pod
        return {
            "state": "Up",
            "netns": self.network.netns.path,
            "addresses": [str(ip) for ip in self.network.addresses],
            "info": {"name": pod.name, "namespace": pod.namespace, "serviceAccount": pod.service_account},
        }


def _network(pod: Named, netns: NetworkNamespace) -> PodNetwork:
    """Raises CannotEnroll, OSError."""
    found = look_up(netns)
    if not found.everywhere:
        raise CannotEnroll(f"pod {pod}: {NO_ADDRESSES}: it is being set up")
    return pod_network(netns, found.everywhere, found)
