"""The first call of a pair of pods of this node: we make it over their own interfaces, and carry it.

dialled ── stands ──> taught to the kernel, carried until it ends
   │ └─ its port is not to be had ──> dialled once more, with another
   ├─ unanswered for a second, or judged by a world that is gone ──> `instead`
   └─ refused ──> the call fails
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ztunnel.authz.direct import connection_between
from ztunnel.authz.enforce import LiveConnections
from ztunnel.errors import ConnectionFailed
from ztunnel.flow.connect import Connecting
from ztunnel.flow.engine import Engine
from ztunnel.kernel.dial import Source, dial_socket, share_port
from ztunnel.model.address import Endpoint, IPAddress, ip_text
from ztunnel.model.connection import Connection
from ztunnel.model.port import ports_instead
from ztunnel.model.workload import Workload
from ztunnel.outbound.connect import Call, unreachable
from ztunnel.outbound.decision import ToDirect
from ztunnel.outbound.defer import Joining
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.redirect.layout import Deny, Direct
from ztunnel.telemetry.journey import Journey, direct_journey
from ztunnel.telemetry.labels import Reporter
from ztunnel.telemetry.report import Account, Report

UNANSWERED_SECONDS = 1.0
_ANOTHER_PORT = (errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.EACCES)


def _nothing() -> None:
    """What to do instead is not known yet."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Both ends of a direct call: pods of this node, where on the destination it goes, and what was asked
    for."""

    source: Workload
    source_network: PodNetwork
    route: ToDirect
    destination_network: PodNetwork
    asked: Endpoint

    def connection(self, peer: Endpoint) -> Connection:
        """What to judge, for a call that comes from there. No policy looks at the source's port: it is yet to
        be chosen."""
        target = self.route.endpoint
        if self.source_network.chosen(peer.ip, target.ip) is None:
            return connection_between(self.source, target)
        return Connection(Endpoint(peer.ip, 0), target, self.source.identity)

    def journey(self, reporter: Reporter) -> Journey:
        """What to report."""
        route = self.route
        return direct_journey(reporter, route.endpoint, self.source, route.destination, route.service)


class Admissions(Protocol):
    """Which 4-tuples may reach an application (`redirect.attach.Redirection`)."""

    def admit(self, source: Endpoint, destination: Endpoint) -> None: ...
    def dismiss(self, source: Endpoint, destination: Endpoint) -> None: ...
    def has_arrived(self, source: Endpoint, destination: Endpoint) -> bool: ...


class Flows(Protocol):
    """The direct flows of this node (`oversee.DirectFlows`, which says more of each)."""

    engine: Engine
    report: Report
    live: LiveConnections

    @property
    def kernel(self) -> Admissions: ...

    def teach(self, pair: Pair, verdict: Direct | Deny, source: IPAddress) -> None: ...
    def still_holds(self, pair: Pair, verdict: Direct) -> bool: ...
    def detour(self, cookie: int, destination: Endpoint) -> None: ...


class DirectCall:
    """The first call of a pair, carried by us. Live at both ends: what touches either may end it.

    It goes from the port that the application's own socket has, so that the server sees the same as of the
    later calls, which the kernel makes.
    """

    def __init__(self, flows: Flows, call: Call, pair: Pair, connection: Connection, verdict: Direct) -> None:
        self._flows = flows
        self._call = call
        self._pair = pair
        self._verdict = verdict
        self._instead: Callable[[], None] = _nothing
        self._sock: socket.socket | None = None
        self._peer = Endpoint(connection.source.ip, call.peer.port)
        self._others = ports_instead(call.peer.port)
        self._connecting: Connecting | None = None
        self._splice: Joining | None = None
        self._far: Account | None = None
        self.connection = connection
        self.workload_uid = pair.route.destination.uid

    def start(self, instead: Callable[[], None]) -> bool:
        """Dial; `instead()` is called if the other end does not answer within a second, the kernel does not
        let us, or the verdict is void by then. False if nothing could be done at all."""
        self._instead = instead
        self._flows.live.register(self, self._pair.source.uid)
        self._call.carrier = self
        try:
            self._dial(self._peer.port)
        except OSError:
            self._drop()
            return False
        return True

    def abort(self, error: ConnectionFailed) -> None:
        """End it now, both sides reset."""
        if self._splice is not None:
            self._splice.abort(error)
            return
        self._drop()
        self._call.fail(error)

    def _dial(self, port: int) -> None:
        """From this port, 0: any. Another one than the application's where that is not to be had: it has a
        connection of its own to there."""
        network, endpoint = self._pair.source_network, self._pair.route.endpoint
        host = ip_text(self._peer.ip)
        self._sock = sock = dial_socket(network.netns, endpoint.ip)
        source = None
        if port:
            share_port(sock)
            source = Source(host, (port,), network.netns.ephemeral_ports())
        else:
            sock.bind((host, 0))
        self._peer = Endpoint(self._peer.ip, port or sock.getsockname()[1])
        self._flows.kernel.admit(self._peer, endpoint)
        self._connecting = connecting = Connecting(self._flows.engine, sock, self._connected)
        connecting.start((ip_text(endpoint.ip), endpoint.port), UNANSWERED_SECONDS, source)

    def _connected(self, error: OSError | None) -> None:
        flows, pair = self._flows, self._pair
        self._connecting = None
        if error is None and flows.still_holds(pair, self._verdict):
            self._stands()
        elif error is None or isinstance(error, TimeoutError):
            # Where its SYN has arrived the application takes up no more for now: the next may go this way.
            if error is not None and not flows.kernel.has_arrived(self._peer, pair.route.endpoint):
                flows.detour(pair.source_network.cookie, pair.route.endpoint)
            self._drop()
            self._instead()
        elif error.errno in _ANOTHER_PORT and self._others:
            self._try_another_port(self._others.pop(0))
        else:
            self._drop()
            self._call.fail(unreachable(pair.route.endpoint, error))

    def _try_another_port(self, port: int) -> None:
        self._hang_up()
        try:
            self._dial(port)
        except OSError:
            self._drop()
            self._instead()

    def _stands(self) -> None:
        flows, pair, call = self._flows, self._pair, self._call
        sock, self._sock = self._sock, None
        assert sock is not None
        assert call.journey is not None
        flows.teach(pair, self._verdict, self._peer.ip)
        call.open(call.journey)
        self._far = flows.report.open(pair.journey(Reporter.DESTINATION), self._peer, call.counts)
        self._instead = _nothing
        self._splice = call.join(flows.engine, sock, self._ended)

    def _ended(self, error: ConnectionFailed | None) -> None:
        self._flows.live.unregister(self, self._pair.source.uid)
        if self._far is not None:
            self._flows.report.close(self._far, error)
        self._call.ended(error)

    def _drop(self) -> None:
        """Give up before it stands."""
        self._flows.live.unregister(self, self._pair.source.uid)
        self._call.carrier = None
        self._hang_up()

    def _hang_up(self) -> None:
        """The admission of what was never dialled would stay."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._sock is not None:
            self._sock.close()
            self._sock = None
            self._flows.kernel.dismiss(self._peer, self._pair.route.endpoint)
