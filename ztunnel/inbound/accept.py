"""Plaintext that reached a pod outside of any tunnel: judged, then joined with the application, or reset."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from typing import Final, Protocol

from ztunnel.authz.enforce import LiveConnections
from ztunnel.errors import ConnectionFailed, Drained, Exhausted, NoDestination
from ztunnel.flow.accept import has_gone
from ztunnel.flow.engine import Engine
from ztunnel.flow.flow import Counts
from ztunnel.flow.held import HeldBytes, Share
from ztunnel.flow.rate import Rate
from ztunnel.flow.share import Place, Shares
from ztunnel.flow.splice import Splice, close_with_reset, splice
from ztunnel.flow.turn import Turns
from ztunnel.inbound.connect import AppDial, Approach, unreachable
from ztunnel.inbound.decision import judge_plain
from ztunnel.inbound.port import SparePorts
from ztunnel.model.address import Endpoint, IPAddress, PeerAddress, canonical, ip_text
from ztunnel.model.connection import Connection
from ztunnel.model.port import port_beside
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.state.hold import Hold
from ztunnel.telemetry.journey import Journey
from ztunnel.telemetry.labels import Reporter
from ztunnel.telemetry.report import Account, Report

_REMEMBERED_ADDRESSES: Final = 64
"""A pod has a few addresses; what it calls its own loopback by are others."""


PLACES: Final = 64
"""So many may wait for their turn of each listener; more of them stay in its backlog, where the kernel turns
newcomers away by and by: accepting and resetting them would let a peer come at full speed."""

PLAIN_RATE: Final = Rate(200, 3000, 0)
"""Plaintext connections of one address: 200 at once, then 3,000 a second, which is two thirds of what the
engine can open. One address may be many clients: what comes by a NodePort or an ingress controller has that
of a node, or of the controller. More wait."""


TurnAway = Callable[[IPAddress, float], None]
"""Has the kernel refuse HBONE of this address for so many seconds. Raises OSError."""


def _turned_away_here(source: IPAddress, seconds: float) -> None:
    """Nothing does it for us."""


class LocalPod(Protocol):
    """A pod of this node, as it is now: it changes while its acceptors and sessions live."""

    @property
    def uid(self) -> str:
        """The workload's."""

    @property
    def network(self) -> PodNetwork:
        """Its namespace and addresses."""

    @property
    def serving(self) -> bool:
        """False once it was removed: sessions that stand only now are asked to go."""


@dataclass(frozen=True, slots=True)
class Inbound:
    """What the way into pods works with; one for all pods of the node."""

    engine: Engine
    hold: Hold
    live: LiveConnections
    report: Report
    turns: Turns
    """In which plaintext connections are opened."""

    spare_ports: SparePorts = field(default_factory=SparePorts)
    room: Shares = field(default_factory=Shares)
    """Places for connections, of all ways; each may take two descriptors."""

    held: HeldBytes = field(default_factory=HeldBytes)
    """Bytes that either side has not taken, of all ways."""

    turn_away: TurnAway = _turned_away_here
    """Of handshakes alone."""


class PlainConnection:
    """One plaintext connection. It registers itself with the live connections, so that a change of policy can
    end it; `connection` is what was judged."""

    __slots__ = (
        "_account",
        "_counts",
        "_dial",
        "_inbound",
        "_opener",
        "_place",
        "_share",
        "_splice",
        "connection",
        "workload_uid",
    )

    def __init__(self, inbound: Inbound, uid: str, opener: socket.socket, connection: Connection) -> None:
        """Takes over `opener`."""
        self._inbound = inbound
        self._opener: socket.socket | None = opener
        self._counts = Counts()
        self._dial: AppDial | None = None
        self._splice: Splice | None = None
        self._account: Account | None = None
        self._place: Place | None = None
        self._share: Share | None = None
        self.connection = connection
        self.workload_uid = uid

    def start(self, approach: Approach, journey: Journey) -> None:
        """Connect the application."""
        inbound = self._inbound
        self._account = inbound.report.open(journey, self.connection.source, self._counts)
        inbound.live.register(self)
        source = ip_text(self.connection.source.ip)
        self._place = inbound.room.enter(self.workload_uid, source, self._give_way)
        if self._place is None:
            self._fail(Exhausted())
            return
        self._share = inbound.held.share(approach.namespace.cookie, self.connection.source.ip)
        self._dial = AppDial(inbound.engine, inbound.spare_ports, approach)
        self._dial.start([port_beside(self.connection.source.port), 0], self._reached)

    def _give_way(self) -> None:
        self.abort(Exhausted())

    def abort(self, error: ConnectionFailed) -> None:
        """End it now, both sides reset. Nothing happens if it has ended already."""
        if self._splice is not None:
            self._splice.abort(error)
        elif self._opener is not None:
            if self._dial is not None:
                self._dial.cancel()
            self._fail(error)

    def _reached(self, app: socket.socket | None, error: OSError | None) -> None:
        self._dial = None
        opener = self._opener
        if opener is None or app is None:
            self._fail(unreachable(self.connection.destination, error))
            return
        try:
            inbound = self._inbound
            self._splice = splice(inbound.engine, opener, app, self._counts, self._ended, self._share)
        except OSError as failure:
            close_with_reset(app)
            self._fail(unreachable(self.connection.destination, failure))
        else:
            self._opener = None

    def _fail(self, error: ConnectionFailed) -> None:
        """It ends before it has carried anything."""
        opener, self._opener = self._opener, None
        if opener is not None:
            close_with_reset(opener)
        self._ended(error)

    def _ended(self, error: ConnectionFailed | None) -> None:
        self._inbound.live.unregister(self)
        place, self._place = self._place, None
        if place is not None:
            self._inbound.room.leave(place)
        if self._account is not None:
            self._inbound.report.close(self._account, error)


class PlainAcceptor:
    """What becomes of each connection that the kernel steered to one of a pod's inbound listeners."""

    def __init__(
        self, inbound: Inbound, pod: LocalPod, called: Callable[[socket.socket], Endpoint] | None = None
    ) -> None:
        """`called` says where an accepted socket was to go, or raises OSError; None: to its local address,
        as what steers it here rewrites nothing."""
        self._where = called
        self._waiting = 0
        self._inbound = inbound
        self._pod = pod
        self._addresses: dict[str, IPAddress] = {}

    def accepted(self, opener: socket.socket, peer: PeerAddress) -> None:
        """Take over one accepted socket; it is judged and opened when it is its source's turn."""
        inbound = self._inbound
        self._waiting += 1
        piece = partial(self._open, opener, peer, inbound.engine.number)
        inbound.turns.enter(self._pod.uid, peer.ip, piece)

    def full(self) -> bool:
        """Whether new ones had better stay in the listener's backlog for a moment."""
        return self._waiting >= PLACES

    def _open(self, opener: socket.socket, peer: PeerAddress, since: int) -> None:
        """The peer has what it called: it is judged, and joined with the application."""
        self._waiting -= 1
        inbound, pod = self._inbound, self._pod
        if since != inbound.engine.number and has_gone(opener):
            inbound.engine.given_up += 1
            opener.close()
            return
        try:
            called = self._called(opener)
        except OSError:
            opener.close()
            return
        world = inbound.hold.world
        workload = world.workload(pod.uid)
        journey = Journey(Reporter.DESTINATION, called, world.by_ip(peer.ip), workload)
        try:
            if workload is None:
                raise Drained("the workload has left the mesh")
            found = judge_plain(world, workload, peer, called)
        except NoDestination as error:
            close_with_reset(opener)
            inbound.report.deny_early(journey.reporter.direction, peer, called, str(error))
        except ConnectionFailed as error:
            close_with_reset(opener)
            inbound.report.refuse(journey, peer, error)
        else:
            connection = found.admitted.connection
            inbound.report.try_out(found.admitted.tried, journey, peer)
            approach = Approach(pod.network, connection.source.ip, connection.destination)
            PlainConnection(inbound, pod.uid, opener, connection).start(approach, journey)

    def _called(self, opener: socket.socket) -> Endpoint:
        """What the peer called; parsing the address costs more than accepting. Raises OSError."""
        if self._where is not None:
            return self._where(opener)
        text, port = opener.getsockname()[:2]
        ip = self._addresses.get(text)
        if ip is None:
            if len(self._addresses) >= _REMEMBERED_ADDRESSES:
                self._addresses.clear()
            ip = self._addresses[text] = canonical(ip_address(text.partition("%")[0]))
        return Endpoint(ip, port)
