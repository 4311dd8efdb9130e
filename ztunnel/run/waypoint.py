"""Runs a waypoint until it is told to end, and drains it.

```
world received ── its own pod is known ──> certificate ──> listening, ready ──SIGTERM──> GOAWAY ──> end
```

It is no node proxy: it has no programs in the kernel, and only its own identity. Who may call it by HBONE is
whoever has a certificate of the mesh; what they may call through it is what is attached to it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from random import Random, SystemRandom
from typing import Any

import trio

from ztunnel import __version__
from ztunnel.authz.enforce import LiveConnections
from ztunnel.config import Settings
from ztunnel.errors import ConfigError, Drained, Fault, NoCertificate
from ztunnel.flow.accept import Acceptor
from ztunnel.flow.drive import drive
from ztunnel.flow.engine import Engine
from ztunnel.flow.turn import Turns
from ztunnel.hbone.ledger import Ledger
from ztunnel.hbone.terminate import TerminatedTunnel
from ztunnel.http2.limits import Limits
from ztunnel.inbound.accept import PLAIN_RATE, Inbound, LocalPod
from ztunnel.inbound.serve import Handshakes, Serving
from ztunnel.kernel import netns
from ztunnel.kernel.sockets import Listening, listen_in
from ztunnel.l7.path import SPELLINGS
from ztunnel.l7.routing.retry import Budget
from ztunnel.model.address import Endpoint, PeerAddress
from ztunnel.model.identity import SpiffeId
from ztunnel.model.workload import Workload
from ztunnel.outbound.dial import Dialler
from ztunnel.outbound.find import Patience as SessionPatience
from ztunnel.outbound.find import Tunnels
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.run.compiled import compiled_modules
from ztunnel.run.dump import dump_settings
from ztunnel.run.follow import ControlPlane, Knowledge, follow
from ztunnel.run.keep import set_up_process
from ztunnel.run.outlets import Outlets
from ztunnel.run.pages import Listeners, listen, serve_public
from ztunnel.run.policies import follow_policies
from ztunnel.run.reporting import Reporting, now
from ztunnel.run.request_telemetry import telemetry_of
from ztunnel.run.routes import RouteCompiler
from ztunnel.run.stop import Stop
from ztunnel.state.dump import dump_http, dump_world
from ztunnel.state.lookup import HBONE_PORT
from ztunnel.telemetry.figures import Tally
from ztunnel.telemetry.report import Report
from ztunnel.telemetry.serve import Admin, serve_admin
from ztunnel.waypoint.answer import WaypointAcceptor
from ztunnel.waypoint.hold import Parts
from ztunnel.waypoint.upstream.connect import Servers
from ztunnel.waypoint.upstream.find import Here
from ztunnel.waypoint.way import Common, Watched
from ztunnel.xds.resource import JWT_POLICY, WAYPOINT_TYPES

_BACKLOG = 4096
_LOOK_SECONDS = 1.0
_WAIT_SECONDS = 0.05
_NOTICE_SECONDS = 3.0
"""For the endpoints of our service to be without us, and every node proxy to know."""
_OWN_POD, _CERTIFICATE, _DRAINING = "own pod", "certificate", "draining"
_STREAMS = 100
"""Tunnels of one session (Istio's waypoint: max_concurrent_streams of connect_terminate)."""


@dataclass(slots=True)
class _Pod:
    """The waypoint's own pod, as the handshakes know it."""

    uid: str
    network: PodNetwork
    serving: bool = True


@dataclass(slots=True)
class _Waypoint:
    """A waypoint that runs."""

    settings: Settings
    reporting: Reporting
    knowledge: Knowledge
    engine: Engine
    ledger: Ledger
    pod: _Pod
    parts: Parts
    handshakes: Handshakes
    dialler: Dialler
    tunnels: Tunnels
    outlets: Outlets


async def run_waypoint(settings: Settings, plane: ControlPlane, reporting: Reporting, stop: Stop) -> None:
    """Run until the end is asked for, and drain.

    Raises:
        ConfigError: it is not said which pod this is, or a port is taken.
    """
    if not settings.pod_name or not settings.pod_namespace:
        message = "which pod is this? Set POD_NAME and POD_NAMESPACE (the downward API)"
        raise ConfigError(Fault("settings", 0, "POD_NAME", message))
    set_up_process()
    with ExitStack() as ends:
        listeners = await listen(settings)
        ends.callback(listeners.close)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reporting.writer.run)
            nursery.start_soon(serve_public, reporting, listeners)
            who = f"{settings.pod_namespace}/{settings.pod_name}"
            reporting.log.info("starting", version=__version__, waypoint=who, cluster=settings.cluster)
            knowledge = Knowledge(settings, plane, WAYPOINT_TYPES)
            for each in (_OWN_POD, _CERTIFICATE):
                reporting.readiness.pend(each)
            nursery.start_soon(follow, settings, reporting, knowledge)
            workload = await _own_workload(settings, knowledge)
            reporting.readiness.done(_OWN_POD)
            with netns.own() as namespace:
                waypoint = _build(settings, knowledge, reporting, workload, namespace)
                stop.started()
                await _run_parts(waypoint, listeners, stop)
            reporting.log.info("ended", waypoint=who)
            nursery.cancel_scope.cancel()


async def _own_workload(settings: Settings, knowledge: Knowledge) -> Workload:
    """Wait until the world knows us."""
    uid = f"{settings.cluster}//Pod/{settings.pod_namespace}/{settings.pod_name}"
    await knowledge.received.wait()
    while True:
        workload = knowledge.hold.world.workload(uid)
        if workload is not None and workload.addresses:
            return workload
        await trio.sleep(_WAIT_SECONDS)


def _build(
    settings: Settings,
    knowledge: Knowledge,
    reporting: Reporting,
    workload: Workload,
    namespace: netns.NetworkNamespace,
) -> _Waypoint:
    hold, certificates = knowledge.hold, knowledge.certificates
    rng = Random(SystemRandom().getrandbits(256))  # for choices and ids, never for keys
    engine = Engine(reporting.bug)
    limits = Limits(
        open_streams=settings.pool_max_streams,
        accept_streams=_STREAMS,
        stream_window_bytes=settings.stream_window_bytes,
        session_window_bytes=settings.session_window_bytes,
        frame_bytes=settings.frame_bytes,
        ping_seconds=settings.ping_interval_seconds,
        pong_seconds=settings.ping_timeout_seconds,
        buffered_bytes=settings.buffer_limit_bytes,
    )
    ledger = Ledger(limits)
    write = reporting.access_log.write if settings.access_log else None
    report = Report(reporting.metrics, write, time.monotonic, time.time_ns, settings.log_format == "json")
    own = workload.addresses
    v4 = next((ip for ip in own if isinstance(ip, IPv4Address)), None)
    v6 = next((ip for ip in own if isinstance(ip, IPv6Address)), None)
    pod = _Pod(workload.uid, PodNetwork(namespace.cookie, namespace, v4, v6, own))
    connect = settings.connect_timeout_seconds
    patience = SessionPatience(connect, answer_seconds=1.5 * connect)
    dialler = Dialler(engine, ledger, certificates, now, patience)
    tunnels = Tunnels(engine, ledger, certificates, patience, dialler.ask)
    hold.subscribe(tunnels.changed)
    here = Here(workload.uid, pod.network, hold, rng, engine.clock)
    live: set[Watched] = set()
    telemetry, outlets = telemetry_of(settings, reporting, workload, hold, rng)
    servers = Servers(engine, tunnels, here, ledger.held, connect)
    refusals = Tally(1)
    reporting.figures.counter(
        "ztunnel_waypoint_refusals_total",
        "Requests and connections of clients that were refused for how they were written, or how slowly",
        refusals.samples,
        ("reason",),
    )
    common = Common(
        engine,
        live,
        partial(_new_id, rng),
        refused=refusals.add,
        respell=SPELLINGS[settings.path_normalization],
        rng=rng,
        budget=Budget(),
    )
    parts = Parts(engine, here, servers, common, telemetry, report, tells_identity=settings.tells_identity)
    parts.hops = settings.trusted_proxies
    if knowledge.on_demand is not None:
        parts.on_demand = knowledge.on_demand
    follow_policies(parts, reporting)
    inbound = Inbound(engine, hold, LiveConnections(), report, Turns(engine, PLAIN_RATE), held=ledger.held)
    handshakes = Handshakes(inbound, ledger, certificates, now, partial(_begin, parts))
    waypoint = _Waypoint(
        settings, reporting, knowledge, engine, ledger, pod, parts, handshakes, dialler, tunnels, outlets
    )
    _register_figures(waypoint)
    return waypoint


def _begin(
    parts: Parts, _inbound: Inbound, _pod: LocalPod, ends: tuple[Endpoint, PeerAddress], identity: SpiffeId
) -> Serving:
    return Serving(WaypointAcceptor(parts, ends, identity).requested, TerminatedTunnel)


def _new_id(rng: Random) -> bytes:
    """An `x-request-id`: a UUID of version 4."""
    digits = f"{rng.getrandbits(128):032x}"
    variant = "89ab"[rng.getrandbits(2)]
    parts = digits[:8], digits[8:12], f"4{digits[13:16]}", f"{variant}{digits[17:20]}", digits[20:]
    return "-".join(parts).encode()


async def _run_parts(waypoint: _Waypoint, listeners: Listeners, stop: Stop) -> None:
    """Every part, each in its task, until the end is asked for and the drain is over."""
    contain, engine = waypoint.reporting.contain, waypoint.engine
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drive, engine)
            nursery.start_soon(_serve_admin, waypoint, listeners, stop)
            nursery.start_soon(waypoint.dialler.run, contain, waypoint.tunnels)
            nursery.start_soon(waypoint.handshakes.run, contain)
            nursery.start_soon(_look_after, waypoint)
            nursery.start_soon(RouteCompiler(waypoint.parts.routers, waypoint.parts.here).run, contain)
            nursery.start_soon(waypoint.outlets.run)
            if (acceptor := await _listen_until_asked(waypoint, stop)) is not None:
                await stop.asked.wait()
                await _give_notice(waypoint, stop)
                acceptor.close()
                await _drain(waypoint, stop)
            nursery.cancel_scope.cancel()
    finally:
        waypoint.parts.servers.close()
        engine.close()


async def _listen_until_asked(waypoint: _Waypoint, stop: Stop) -> Acceptor | None:
    """As `_listen`; None: the end was asked for before there was a certificate."""
    acceptor = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_when, stop.asked, nursery.cancel_scope)
        acceptor = await _listen(waypoint)
        nursery.cancel_scope.cancel()
    return acceptor


async def _cancel_when(asked: trio.Event, scope: trio.CancelScope) -> None:
    await asked.wait()
    scope.cancel()


async def _listen(waypoint: _Waypoint) -> Acceptor:
    """Take connections, once we can prove who we are."""
    certificates, pod = waypoint.knowledge.certificates, waypoint.pod
    workload = waypoint.parts.here.workload
    assert workload is not None
    certificates.want(workload.identity)
    while True:
        try:
            await certificates.fetch(workload.identity)
            break
        except NoCertificate as error:
            waypoint.reporting.readiness.detail(_CERTIFICATE, str(error))
            await trio.sleep(_LOOK_SECONDS)
    try:
        sock = listen_in(pod.network.netns, HBONE_PORT, _BACKLOG, Listening(waypoint.settings.ipv6))
    except OSError as error:
        message = f"port {HBONE_PORT} of the pod cannot be had: {error.strerror}"
        raise ConfigError(Fault("settings", 0, "", message)) from error
    acceptor = Acceptor(waypoint.engine, sock, partial(waypoint.handshakes.accepted, pod))
    waypoint.reporting.readiness.done(_CERTIFICATE)
    waypoint.reporting.log.info("ready", workloads=len(waypoint.knowledge.hold.world.workloads))
    return acceptor


async def _look_after(waypoint: _Waypoint) -> None:
    """See to what is waited for too long, and to what is spare for too long."""
    parts, clock = waypoint.parts, waypoint.engine.clock
    while True:
        await trio.sleep(_LOOK_SECONDS)
        waypoint.engine.post(partial(_look, parts, clock))
        waypoint.knowledge.ask(JWT_POLICY, parts.authenticator.take_missed())
        waypoint.parts.report.flush()
        waypoint.tunnels.retire_idle(waypoint.settings.pool_release_seconds)


def _look(parts: Parts, clock: Callable[[], float]) -> None:
    at = clock()
    for each in tuple(parts.common.live):
        each.look(at)
    parts.expire()
    parts.servers.look(at, parts.common.patience.upstream_idle_seconds)


async def _give_notice(waypoint: _Waypoint, stop: Stop) -> None:
    """Go on as before until every node has heard that we leave: who has not is refused otherwise."""
    waypoint.reporting.readiness.pend(_DRAINING)
    with trio.move_on_after(min(_NOTICE_SECONDS, waypoint.settings.termination_deadline_seconds / 2)):
        await stop.urged.wait()


async def _drain(waypoint: _Waypoint, stop: Stop) -> None:
    """Take nothing new, let what is under way end, and end the rest."""
    waypoint.pod.serving = False
    waypoint.handshakes.drain(waypoint.pod.uid)
    for each in tuple(waypoint.parts.common.live):
        each.drain()
    with trio.move_on_after(waypoint.settings.termination_deadline_seconds):
        while waypoint.ledger.streams and not stop.urged.is_set():
            waypoint.engine.post(waypoint.parts.servers.shed)  # spare connections to servers are streams, too
            await trio.sleep(_WAIT_SECONDS)
    waypoint.handshakes.abort(waypoint.pod.uid, Drained("connection closed due to connection drain"))
    await trio.sleep(_WAIT_SECONDS)  # what is said last leaves with the engine's next rounds


async def _serve_admin(waypoint: _Waypoint, listeners: Listeners, stop: Stop) -> None:
    def drain() -> None:
        for each in tuple(waypoint.parts.common.live):
            each.drain()

    reporting = waypoint.reporting
    admin = Admin(partial(_dump, waypoint), reporting.levels, stop.ask, drain)
    await serve_admin([listeners.admin], admin, reporting.boundary)


def _dump(waypoint: _Waypoint) -> dict[str, Any]:
    return {
        **dump_world(waypoint.knowledge.hold.world),
        **dump_http(waypoint.knowledge.hold.world),
        "manifests": waypoint.knowledge.plane.dump(),
        "version": {"version": __version__, "pid": os.getpid(), "compiled": compiled_modules()},
        "config": dump_settings(waypoint.settings),
    }


def _register_figures(waypoint: _Waypoint) -> None:
    figures, ledger, parts = waypoint.reporting.figures, waypoint.ledger, waypoint.parts
    figures.gauge("ztunnel_hbone_sessions", "HBONE sessions that stand", lambda: ledger.sessions)
    figures.gauge("ztunnel_hbone_tunnels", "Tunnels on these sessions", lambda: ledger.streams)
    figures.gauge(
        "ztunnel_hbone_buffered_bytes", "Bytes that are held for who does not take them",
        lambda: ledger.buffered_bytes,
    )  # fmt: skip
    figures.counter(
        "ztunnel_hbone_glitches_total", "What peers did that no peer does", lambda: ledger.glitches
    )
    figures.counter(
        "ztunnel_waypoint_undetected_total",
        "Connections to unnamed ports of which nobody could tell within a second what is spoken on them",
        lambda: parts.undetected,
    )
    clusters = parts.here.clusters
    figures.counter(
        "ztunnel_waypoint_ejections_total",
        "Endpoints that were not chosen for a while because they failed (outlierDetection)",
        clusters.all_ejections,
    )
    figures.gauge("ztunnel_waypoint_ejected", "Endpoints of which that is so now", clusters.ejected)
    figures.counter(
        "ztunnel_waypoint_overflows_total",
        "How often a limit of a DestinationRule (connectionPool) was in the way of a connection or request",
        clusters.all_overflows,
        ("limit",),
    )
    figures.gauge(
        "ztunnel_waypoint_connections", "Clients' connections that speak HTTP", lambda: len(parts.common.live)
    )
    shadows, budget, broken = parts.shadows, parts.common.budget, parts.routers.broken
    figures.gauge("ztunnel_waypoint_mirrors", "Mirrored requests under way", lambda: shadows.live)
    figures.counter(
        "ztunnel_waypoint_mirrors_dropped_total",
        "Mirrored requests that were not sent, as too many were under way",
        lambda: shadows.dropped,
    )
    figures.counter(
        "ztunnel_waypoint_retries_refused_total",
        "Requests that were not tried again, as too many others were",
        lambda: budget.refused if budget is not None else 0,
    )
    figures.gauge(
        "ztunnel_waypoint_broken_routes", "Services whose routes cannot be compiled", lambda: len(broken)
    )
