"""Plaintext that reached a pod from outside of any tunnel: judged, then connected with the application, or reset."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import ip_address

from ztunnel.authz.enforce import LiveConnections
from ztunnel.errors import ConnectionFailed, Drained, NoDestination, Unreachable
from ztunnel.flow.engine import Engine
from ztunnel.flow.flow import Counts
from ztunnel.flow.splice import Splice, close_with_reset, splice
from ztunnel.inbound.connect import Admissions, AppDial
from ztunnel.inbound.decision import InboundAdmitted, judge_plain
from ztunnel.model.address import Endpoint, PeerAddress, canonical
from ztunnel.model.connection import Connection
from ztunnel.redirect.attach import PodNetwork
from ztunnel.state.hold import Hold
from ztunnel.telemetry.labels import Reporter
from ztunnel.telemetry.report import Account, Journey, Report


@dataclass(frozen=True, slots=True)
class Inbound:
    """What the way into pods works with; one for all pods of the node."""

    engine: Engine
    hold: Hold
    live: LiveConnections
    report: Report
    admissions: Admissions


class PlainConnection:
    """One connection on 15006. It registers itself with the live connections, so that a change of policy can end it;
    `connection` is what was judged."""

    __slots__ = (
        "_account",
        "_counts",
        "_dial",
        "_inbound",
        "_opener",
        "_splice",
        "connection",
        "workload_uid",
    )

    def __init__(self, inbound: Inbound, uid: str, opener: socket.socket, admitted: InboundAdmitted) -> None:
        """Takes over `opener`."""
        self._inbound = inbound
        self._opener: socket.socket | None = opener
        self._counts = Counts()
        self._dial: AppDial | None = None
        self._splice: Splice | None = None
        self._account: Account | None = None
        self.connection: Connection = admitted.admitted.connection
        self.workload_uid = uid

    def start(self, network: PodNetwork, journey: Journey) -> None:
        """Connect the application."""
        self._account = self._inbound.report.open(journey, self._counts)
        self._inbound.live.register(self)
        self._dial = AppDial(
            self._inbound.engine,
            self._inbound.admissions,
            network,
            self.connection.source,
            self.connection.destination,
        )
        self._dial.start(self._reached)

    def abort(self, error: ConnectionFailed) -> None:
        """End it now, both sides reset."""
        if self._splice is not None:
            self._splice.abort(error)
        elif self._opener is not None:
            if self._dial is not None:
                self._dial.cancel()
            close_with_reset(self._opener)
            self._opener = None
            self._ended(error)

    def _reached(self, app: socket.socket | None, error: OSError | None) -> None:
        opener, self._opener = self._opener, None
        self._dial = None
        if opener is None:
            if app is not None:
                app.close()
            return
        if app is None:
            close_with_reset(opener)
            self._ended(Unreachable(f"connection failed: {error}"))
            return
        self._splice = splice(self._inbound.engine, opener, app, self._counts, self._ended)

    def _ended(self, error: ConnectionFailed | None) -> None:
        self._inbound.live.unregister(self)
        if self._account is not None:
            self._inbound.report.close(self._account, error)


class PlainAcceptor:
    """What becomes of each connection that the kernel steered to a pod's 15006."""

    def __init__(self, inbound: Inbound, uid: str, network: PodNetwork) -> None:
        self._inbound = inbound
        self._uid = uid
        self._network = network

    def accepted(self, opener: socket.socket, peer: PeerAddress) -> None:
        """Take over one accepted socket. Its local address is what the peer called: the kernel did not rewrite it."""
        inbound = self._inbound
        try:
            local = opener.getsockname()
        except OSError:
            opener.close()
            return
        called = Endpoint(canonical(ip_address(local[0])), local[1])
        world = inbound.hold.world
        workload = world.workload(self._uid)
        journey = Journey(Reporter.DESTINATION, peer, called, world.by_ip(peer.ip), workload)
        try:
            if workload is None:
                raise Drained("the workload has left the mesh")
            admitted = judge_plain(world, workload, peer, called)
        except NoDestination as error:
            close_with_reset(opener)
            inbound.report.deny_early(journey.reporter.direction, peer, called, str(error))
        except ConnectionFailed as error:
            close_with_reset(opener)
            inbound.report.refuse(journey, error)
        else:
            PlainConnection(inbound, self._uid, opener, admitted).start(self._network, journey)
