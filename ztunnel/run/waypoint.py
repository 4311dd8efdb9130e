"""Runs a waypoint until it is told to end, and drains it.

```
world received ── its own pod is known ──> certificate ──> listening, ready ──SIGTERM──> GOAWAY ──> end
```

It is no node proxy: it has no programs in the kernel, and only its own identity. Who may call it by HBONE is
whoever has a certificate of the mesh; what they may call through it is what is attached to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import trio

from ztunnel import __version__
from ztunnel.config import Settings
from ztunnel.errors import ConfigError, Drained, Fault, NoCertificate
from ztunnel.flow.accept import Acceptor
from ztunnel.flow.drive import drive
from ztunnel.kernel import netns
from ztunnel.kernel.sockets import Listening, listen_in
from ztunnel.model.workload import Workload
from ztunnel.run.compiled import compiled_modules
from ztunnel.run.dump import Compose, dump_settings
from ztunnel.run.follow import ControlPlane, Knowledge, follow
from ztunnel.run.keep import set_up_process
from ztunnel.run.notice import give_notice
from ztunnel.run.pages import Listeners, listen, serve_public
from ztunnel.run.reporting import Reporting
from ztunnel.run.routes import RouteCompiler
from ztunnel.run.stop import Stop
from ztunnel.run.waypoint_build import Waypoint, build_waypoint
from ztunnel.state.dump import dump_http, dump_world
from ztunnel.state.lookup import HBONE_PORT
from ztunnel.telemetry.serve import Admin, serve_admin
from ztunnel.waypoint.hold import Parts
from ztunnel.xds.resource import JWT_POLICY, WAYPOINT_TYPES

_BACKLOG = 4096
_LOOK_SECONDS = 1.0
_WAIT_SECONDS = 0.05
_OWN_POD, _CERTIFICATE, _DRAINING = "own pod", "certificate", "draining"


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
                waypoint = build_waypoint(settings, knowledge, reporting, workload, namespace)
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


async def _run_parts(waypoint: Waypoint, listeners: Listeners, stop: Stop) -> None:
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
                waypoint.reporting.readiness.pend(_DRAINING)
                seconds = waypoint.settings.termination_deadline_seconds
                left_seconds = await give_notice(stop, waypoint.parts.quiet_seconds, seconds)
                acceptor.close()
                await _drain(waypoint, stop, left_seconds)
            nursery.cancel_scope.cancel()
    finally:
        waypoint.parts.servers.close()
        engine.close()


async def _listen_until_asked(waypoint: Waypoint, stop: Stop) -> Acceptor | None:
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


async def _listen(waypoint: Waypoint) -> Acceptor:
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


async def _look_after(waypoint: Waypoint) -> None:
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


async def _drain(waypoint: Waypoint, stop: Stop, seconds: float) -> None:
    """Take nothing new, let what is under way end for so long, and end the rest."""
    waypoint.pod.serving = False
    waypoint.handshakes.drain(waypoint.pod.uid)
    for each in tuple(waypoint.parts.common.live):
        each.drain()
    with trio.move_on_after(seconds):
        while waypoint.ledger.streams and not stop.urged.is_set():
            waypoint.engine.post(waypoint.parts.servers.shed)  # spare connections to servers are streams, too
            await trio.sleep(_WAIT_SECONDS)
    waypoint.handshakes.abort(waypoint.pod.uid, Drained("connection closed due to connection drain"))
    await trio.sleep(_WAIT_SECONDS)  # what is said last leaves with the engine's next rounds


async def _serve_admin(waypoint: Waypoint, listeners: Listeners, stop: Stop) -> None:
    def drain() -> None:
        for each in tuple(waypoint.parts.common.live):
            each.drain()

    reporting = waypoint.reporting
    admin = Admin(partial(_dump, waypoint), reporting.levels, stop.ask, drain)
    await serve_admin([listeners.admin], admin, reporting.boundary)


def _dump(waypoint: Waypoint) -> Compose:
    world, manifests = waypoint.knowledge.hold.world, waypoint.knowledge.plane.dump()
    return lambda: {
        **dump_world(world),
        **dump_http(world),
        "manifests": manifests,
        "version": {"version": __version__, "pid": os.getpid(), "compiled": compiled_modules()},
        "config": dump_settings(waypoint.settings),
    }
