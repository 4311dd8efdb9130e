"""A waypoint in one process: a client's session into it, its own to servers, and both ends played."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from random import Random

from tests.builders import world_of
from tests.hbone.inner import Answers, Listener
from tests.hbone.peers import Lab
from ztunnel.hbone.carry import Session
from ztunnel.hbone.originate import OriginatedTunnel
from ztunnel.hbone.request import RequestHead
from ztunnel.hbone.terminate import TerminatedTunnel
from ztunnel.l7.balancing.tried import Tried
from ztunnel.model.address import Endpoint, OriginalDestination, PeerAddress
from ztunnel.model.http_policy import Attribute, HttpAction, HttpPolicy, Term, TextKind, TextMatch
from ztunnel.model.route_action import Destination
from ztunnel.model.service import AppProtocol, Port, Service, ServiceName, Waypoint
from ztunnel.model.workload import TunnelProtocol, Workload
from ztunnel.outbound.find import Wanted
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.state.delta import apply
from ztunnel.state.hold import Hold
from ztunnel.telemetry.metrics import TcpMetrics
from ztunnel.telemetry.report import Report
from ztunnel.telemetry.request_counts import RequestCounts, RequestLabels
from ztunnel.telemetry.request_log import RequestRecord, render_request
from ztunnel.waypoint.answer import WaypointAcceptor
from ztunnel.waypoint.hold import Parts
from ztunnel.waypoint.reporting.report import Telemetry
from ztunnel.waypoint.reporting.scope import Log, Scope
from ztunnel.waypoint.upstream.clusters import WHOLE, Subset
from ztunnel.waypoint.upstream.connect import Servers
from ztunnel.waypoint.upstream.find import Here, Target
from ztunnel.waypoint.upstream.pick import Caller as Picker
from ztunnel.waypoint.upstream.pick import Pick
from ztunnel.waypoint.way import Common

WP = ServiceName("shop", "wp.shop.svc.cluster.local")
WEB = ServiceName("shop", "web.shop.svc.cluster.local")
PORTS = tuple(Port(port, 8080) for port in (80, 90, 5432))


def workload(name: str, ip: str, service: ServiceName | None, ports: tuple[Port, ...], **more) -> Workload:
    services = {service: ports} if service else {}
    return Workload(
        f"k//Pod/shop/{name}", name, "shop", name, addresses=(ip_address(ip),), workload_name=name,
        canonical_name=name, protocol=TunnelProtocol.HBONE, services=services, **more,
    )  # fmt: skip


ME = workload("wp", "10.0.0.1", WP, (Port(15008, 15008),), native_tunnel=True)
CALLER = workload("caller", "10.0.0.2", None, ())
SERVERS = workload("server-1", "10.0.0.3", WEB, PORTS), workload("server-2", "10.0.0.4", WEB, PORTS)
SERVICE = Service(
    "web", "shop", WEB.hostname, (ip_address("10.1.0.1"),), PORTS, waypoint=Waypoint(WP, None),
    protocols=((80, AppProtocol.HTTP), (5432, AppProtocol.TCP)),
)  # fmt: skip


def scope_with(
    write: Callable[[str], None], render: Callable[[RequestRecord], str] = render_request
) -> Scope:
    """What is reported where nobody wants anything else: a line for each."""
    return Scope((Log(lambda record, context: write(render(record))),))


class Tunnels:
    """Sessions to servers: one for each address, made when it is asked for; `refuses` are those without."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.sessions: dict[str, Session] = {}
        self.asked: list[tuple[str, TerminatedTunnel]] = []
        self.refuses: dict[str, Exception] = {}

    def open(self, wanted: Wanted) -> None:
        ip = str(wanted.key.destination.ip)
        if ip in self.refuses:
            wanted.fail(self.refuses[ip])
            return
        session = self.sessions.get(ip)
        if session is None:
            near, far = self.mesh.lab._links()
            engine, ledger = self.mesh.lab.engine, self.mesh.lab.ledger

            def asked(tunnel: TerminatedTunnel) -> None:
                self.asked.append((ip, tunnel))

            Session(engine, far, ledger, lambda *end: None, asked, incoming=TerminatedTunnel)
            session = self.sessions[ip] = Session(engine, near, ledger, lambda *end: None)
        if wanted.live:
            wanted.begin(session, 5.0)

    def again(self, wanted: Wanted, error: Exception) -> None:
        wanted.fail(error)


class Mesh:
    """All of it."""

    def __init__(self, lab: Lab, *items) -> None:
        self.lab = lab
        engine = lab.engine
        self.hold = Hold(world_of(*(items or (ME, CALLER, *SERVERS, SERVICE))))
        self.tunnels = Tunnels(self)
        self.lines: list[str] = []
        self.denied: list[str] = []
        network = PodNetwork(1, None, ME.addresses[0], None, ME.addresses)  # type: ignore[arg-type]
        self.here = Here(ME.uid, network, self.hold, Random(1), lab.clock)
        self.requests, self.metrics = RequestCounts(), TcpMetrics()
        self.scope = scope_with(self.lines.append)
        telemetry = Telemetry(self.requests, self.metrics, lambda: 10**18, lambda service: self.scope)
        self.servers = Servers(engine, self.tunnels, self.here, lab.ledger.held)  # type: ignore[arg-type]
        report = Report(self.metrics, self.denied.append, lambda: 0.0, lambda: 10**18)
        common = Common(engine, set(), lambda: b"an-id")
        self.parts = Parts(engine, self.here, self.servers, common, telemetry, report)
        ends = Endpoint(ME.addresses[0], 15008), PeerAddress(CALLER.addresses[0], 40000)
        self.acceptor = WaypointAcceptor(self.parts, ends, CALLER.identity)
        near, far = lab._links()
        self.client = Session(engine, near, lab.ledger, lambda *end: None)
        self.server = Session(
            engine, far, lab.ledger, lambda *end: None, self.acceptor.requested, incoming=TerminatedTunnel
        )

    def pick(self, tried: Tried | None = None, subset: Subset = WHOLE) -> Pick:
        """A choice of an endpoint."""
        caller = Picker(CALLER.addresses[0])
        return Pick(self.here.clusters, self.hold.world, caller, tried, subset)

    def choose(self, destination: OriginalDestination, *tried: Endpoint) -> Target:
        """An endpoint of what was called."""
        return self.here.choose(destination, self.pick(Tried(tried) if tried else None))

    def choose_of(self, sought: Destination, called: OriginalDestination, *tried: Endpoint) -> Target:
        """An endpoint of what a route means."""
        pick = self.pick(Tried(tried) if tried else None, Subset(sought.subset, sought.labels))
        return self.here.choose_of(sought, called, pick)

    def ask(self, authority: str) -> tuple[OriginatedTunnel, Answers]:
        """A client asks for a tunnel."""
        answers = Answers()
        block = RequestHead(authority, "", CALLER.addresses[0]).render(41234, "")
        tunnel = self.client.originate(block, answers, 5.0)
        return tunnel, answers

    def open(self, authority: str) -> tuple[OriginatedTunnel, Listener]:
        """A client's tunnel that stands."""
        tunnel, answers = self.ask(authority)
        self.lab.go(until=lambda: answers.log)
        assert answers.log == ["established"], answers.log
        listener = Listener()
        listener.tunnel = tunnel
        tunnel.attach(listener)
        return tunnel, listener

    def asked(self, count: int = 1) -> tuple[str, TerminatedTunnel]:
        """The last of so many tunnels that servers were asked for."""
        self.lab.go(until=lambda: len(self.tunnels.asked) >= count)
        return self.tunnels.asked[-1]

    def serve(self, count: int = 1) -> tuple[TerminatedTunnel, Listener]:
        """The last of so many tunnels to servers, accepted."""
        from ztunnel.hbone.request import render_response

        _, tunnel = self.asked(count)
        listener = Listener()
        listener.tunnel = tunnel
        tunnel.accept(render_response(200), listener)
        return tunnel, listener


GET = b"GET /x HTTP/1.1\r\nHost: web\r\n\r\n"
GUARDED = replace(SERVICE, guards=("shop/p",))
REFUSED = "rbac_access_denied_matched_policy[ns[shop]-policy[p]-rule[0]]"
NONE_ALLOWED = "rbac_access_denied_matched_policy[none]"
"""By `policy`, and by none, in a line of the log."""


def counted(mesh: Mesh) -> list[RequestLabels]:
    return list(mesh.requests.series)


def change(mesh: Mesh, *items) -> None:
    """The world is another one now."""
    world, what = apply(mesh.hold.world, items)
    mesh.hold.publish(world, what)
    mesh.parts.rejudge()


def policy(action: HttpAction, *paths: str) -> HttpPolicy:
    term = Term(Attribute.PATH, tuple(TextMatch(TextKind.EXACT, path) for path in paths))
    return HttpPolicy("p", "shop", action, ((((term,),),),))


def one_server(lab: Lab) -> Mesh:
    """A mesh in which the service has one endpoint."""
    return Mesh(lab, ME, CALLER, SERVERS[0], SERVICE)
