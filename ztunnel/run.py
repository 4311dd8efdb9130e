"""Puts a node proxy together from its parts, runs it, and ends it.

The one place where an error that nobody expected is caught (`Boundary`): it ends the connection that it concerns, is
logged with its stack and counted; five in ten seconds make the node not ready.

    loaded, pinned ──> world received ──> pods enrolled ──> ready ──SIGTERM──> no new connections ──deadline──> end
                                                                                 (what is pinned stays in force)
"""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import trio

from ztunnel import __version__
from ztunnel.authz.direct import judge_live_direct
from ztunnel.authz.enforce import LiveConnections
from ztunnel.config import Settings
from ztunnel.errors import ConfigError, Fault, PeerError, Unsupported
from ztunnel.flow.engine import Engine
from ztunnel.hbone.limits import Ledger, Limits
from ztunnel.identity.rotate import Certificates, CertificateSource
from ztunnel.inbound.accept import Inbound
from ztunnel.inbound.serve import Handshakes
from ztunnel.kernel import cgroup, netns
from ztunnel.kernel.sockets import own_cgroup_id
from ztunnel.model.address import Endpoint
from ztunnel.outbound.accept import Mesh, Outbound
from ztunnel.outbound.dial import Patience, Tunnels
from ztunnel.outbound.follow import Follower
from ztunnel.outbound.oversee import DirectFlows
from ztunnel.pods.find import NamedNamespaces, find_kubelet, find_kubepods
from ztunnel.pods.serve import Pods, Ways
from ztunnel.redirect.attach import CgroupBranch, Redirection
from ztunnel.redirect.load import ensure_loaded
from ztunnel.redirect.plan import RedirectSettings, pin_name
from ztunnel.state.delta import Change
from ztunnel.state.dump import dump_world
from ztunnel.state.hold import Hold
from ztunnel.state.subscribe import subscribe
from ztunnel.state.world import World
from ztunnel.telemetry.component import XdsFigures, register_build
from ztunnel.telemetry.export import AccessLog, LineWriter, Log
from ztunnel.telemetry.figures import Figures
from ztunnel.telemetry.level import Levels
from ztunnel.telemetry.metrics import TcpMetrics
from ztunnel.telemetry.readiness import Readiness
from ztunnel.telemetry.report import Report
from ztunnel.telemetry.serve import Admin, Scrape, serve_admin, serve_metrics, serve_readiness
from ztunnel.xds.pb import discovery_pb2
from ztunnel.xds.subscriber import Subscriber, Update, describe_node

LEASE_SECONDS = 0.5
_STATE = "state manager"
_PINS = Path("/sys/fs/bpf/ztunnel")
_RETRY_SECONDS = (0.01, 15.0)


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Where the world and the certificates come from: this process, or istiod."""

    open_session: Callable[
        [],
        tuple[
            trio.MemorySendChannel[discovery_pb2.DeltaDiscoveryRequest],
            trio.MemoryReceiveChannel[discovery_pb2.DeltaDiscoveryResponse],
        ],
    ]
    certificates: CertificateSource


class Voice:
    """What the process says: its log, its figures, whether it is ready; and where its bugs end."""

    def __init__(self, settings: Settings) -> None:
        self.writer = LineWriter(1)
        self.levels = Levels(settings.log_level)
        self.log = Log(self.writer, self.levels, now, settings.log_format == "json")
        self.access_log = AccessLog(self.writer, self.levels)
        self.figures = Figures()
        self.metrics = TcpMetrics(settings.metrics_series_limit)
        self.readiness = Readiness([_STATE])
        register_build(self.figures, __version__)
        self.metrics.register(self.figures)
        self.access_log.register(self.figures)
        self.figures.counter(
            "ztunnel_internal_errors_total",
            "Errors that nobody expected; each ended one connection",
            lambda: self.readiness.internal_errors,
        )

    def bug(self, error: BaseException) -> None:
        """Something happened that nobody expected, and ended what it concerned."""
        self.readiness.internal_error(time.monotonic())
        self.log.bug(error)

    async def contain(self, part: Callable[[], Awaitable[None]]) -> None:
        """Run one connection's part; a bug ends it and nothing else."""
        with self.boundary():
            await part()

    @contextmanager
    def boundary(self) -> Iterator[None]:
        """Errors that nobody expected end here."""
        try:
            yield
        except Exception as error:
            self.bug(error)


def now() -> datetime:
    """The wall clock, aware."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Node:
    """The parts of a running node proxy."""

    settings: Settings
    voice: Voice
    engine: Engine
    redirection: Redirection
    hold: Hold
    ledger: Ledger
    certificates: Certificates
    tunnels: Tunnels
    handshakes: Handshakes
    follower: Follower
    pods: Pods
    live: tuple[LiveConnections, LiveConnections]


async def run_node(settings: Settings, plane: ControlPlane, voice: Voice) -> None:
    """Run until SIGTERM, SIGINT or the admin page ends it, with a drain.

    Raises:
        Unsupported: the machine lacks something.
        ConfigError: a port is taken.
    """
    _raise_file_limit()
    listeners = await _listen(settings)
    redirection = await trio.to_thread.run_sync(_redirect, settings)
    with redirection:
        node = _build(settings, plane, voice, redirection)
        async with trio.open_nursery() as nursery:
            quit_now = trio.Event()
            nursery.start_soon(voice.writer.run)
            nursery.start_soon(node.engine.run)
            nursery.start_soon(node.certificates.run)
            nursery.start_soon(_serve_pages, node, listeners, quit_now)
            nursery.start_soon(node.tunnels.run, voice.contain)
            nursery.start_soon(node.handshakes.run, voice.contain)
            received = trio.Event()
            nursery.start_soon(_follow_world, node, plane, received)
            nursery.start_soon(_serve_pods, node, received)
            nursery.start_soon(_keep_sessions, node)
            await _wait_for_the_end(quit_now)
            await _drain(node)
            nursery.cancel_scope.cancel()


def _raise_file_limit() -> None:
    """Each connection takes two descriptors; what may be had is had (Istio's ztunnel does the same)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _redirect(settings: Settings) -> Redirection:
    """Our programs run in the kernel, and this process is exempt from them. Blocks."""
    pins = settings.pins or _PINS / pin_name(settings.node)
    ensure_loaded(RedirectSettings(pins=pins, cache=settings.cache_dir / "bpf"))
    redirection = Redirection.open(pins)
    root = cgroup.find_root()
    own = own_cgroup_id()
    if own == cgroup.cgroup_id(root):
        redirection.close()
        raise Unsupported(
            "the proxy must not run in the root cgroup, because every process there would be exempt with it: start it in "
            f"a cgroup of its own, such as: mkdir {root}/ztunnel && echo $$ > {root}/ztunnel/cgroup.procs"
        )
    redirection.own_cgroup(own)
    with netns.current() as home:
        redirection.node_clients(home.cookie, *_node_clients(settings.node_clients, root))
    return redirection


def _node_clients(who: str, root: Path) -> tuple[Sequence[int] | None, CgroupBranch | None]:
    """Whose connections from the node itself reach pods: as `Redirection.node_clients` takes it."""
    if who == "all":
        return None, None
    if who == "node":
        return None, find_kubepods(root)
    return find_kubelet(root), None


def _build(settings: Settings, plane: ControlPlane, voice: Voice, redirection: Redirection) -> Node:
    rng = Random(SystemRandom().getrandbits(256))  # for choices and trace ids, never for keys
    engine = Engine(voice.bug)
    hold = Hold(World(settings.network))
    ledger = Ledger(
        Limits(
            open_streams=settings.pool_max_streams,
            stream_window_bytes=settings.stream_window_bytes,
            session_window_bytes=settings.session_window_bytes,
            frame_bytes=settings.frame_bytes,
            buffered_bytes=settings.buffer_limit_bytes,
        )
    )
    write = voice.access_log.write if settings.access_log else None
    report = Report(voice.metrics, write, time.monotonic, now, settings.log_format == "json")
    certificates = Certificates(plane.certificates, now, rng, settings.secret_ttl_seconds)
    live, direct_live = LiveConnections(), LiveConnections(judge_live_direct(settings.same_node))
    direct = DirectFlows(engine, redirection, hold, report, direct_live)
    hold.subscribe(lambda _, world, change: _rejudge(live, world, change))
    tunnels = Tunnels(engine, ledger, certificates, now, Patience(settings.connect_timeout_seconds))
    mesh = Mesh(settings.node, settings.same_node, True, settings.connect_timeout_seconds, rng)
    inbound = Inbound(engine, hold, live, report, redirection)
    outbound = Outbound(engine, hold, report, redirection, tunnels, direct, mesh)
    handshakes = Handshakes(inbound, ledger, certificates, now)
    pods = Pods(
        Ways(outbound, inbound, handshakes, certificates),
        NamedNamespaces(settings.pod_netns),
        voice.log.scoped("pods"),
        voice.readiness,
        settings.ipv6,
    )
    node = Node(
        settings, voice, engine, redirection, hold, ledger, certificates, tunnels, handshakes,
        Follower(direct, hold), pods, (live, direct_live),
    )  # fmt: skip
    _register(node)
    return node


def _rejudge(live: LiveConnections, world: World, change: Change) -> None:
    live.rejudge(world, change)


def _register(node: Node) -> None:
    figures, ledger = node.voice.figures, node.ledger
    node.pods.register(figures)
    figures.counter(
        "ztunnel_redirect_outcomes_total",
        "Why each eBPF hook returned",
        lambda: [((name,), count) for name, count in node.redirection.outcomes().items() if count],
        ["outcome"],
    )
    figures.gauge("ztunnel_hbone_sessions", "HBONE sessions that stand", lambda: ledger.sessions)
    figures.gauge("ztunnel_hbone_tunnels", "Tunnels on these sessions", lambda: ledger.streams)
    figures.gauge(
        "ztunnel_hbone_buffered_bytes",
        "Bytes that applications have not taken",
        lambda: ledger.buffered_bytes,
    )
    figures.counter(
        "ztunnel_hbone_glitches_total", "What peers did that no peer does", lambda: ledger.glitches
    )
    figures.counter(
        "ztunnel_hbone_calmed_total", "Sessions closed for too many glitches", lambda: ledger.calmed
    )
    figures.counter(
        "ztunnel_hbone_handshakes_failed_total",
        "Connections on 15008 that became no session",
        lambda: node.handshakes.failed_total,
    )
    figures.gauge(
        "ztunnel_direct_flows", "Flows that the kernel carries by itself", lambda: len(node.follower)
    )
    figures.gauge(
        "ztunnel_certificate_expiry_seconds",
        "Until the certificate of an identity expires; below zero where there is none",
        lambda: [((str(each.identity),), each.seconds or 0.0) for each in node.certificates.expiring()],
        ["identity"],
    )
    figures.counter(
        "ztunnel_certificates_fetched_total",
        "Certificates that were issued",
        lambda: node.certificates.fetched_total,
    )
    figures.counter(
        "ztunnel_certificates_failed_total",
        "Failed attempts to have one",
        lambda: node.certificates.failed_total,
    )


async def _listen(settings: Settings) -> list[list[trio.SocketListener]]:
    """Listeners for metrics, readiness and admin; all or none."""
    opened: list[list[trio.SocketListener]] = []
    named = (
        ("metrics", settings.metrics_address),
        ("readiness", settings.readiness_address),
        ("admin", settings.admin_address),
    )
    for name, address in named:
        try:
            opened.append(await _open(address))
        except OSError as error:
            raise ConfigError(
                Fault(
                    f"{name} address {address}",
                    0,
                    "",
                    f"{error.strerror or error}: stop who listens there, or set "
                    f"ZTUNNEL_{name.upper()}_ADDRESS",
                )
            ) from error
    return opened


async def _open(address: Endpoint) -> list[trio.SocketListener]:
    family = trio.socket.AF_INET6 if address.ip.version == 6 else trio.socket.AF_INET
    sock = trio.socket.socket(family, trio.socket.SOCK_STREAM)
    sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
    if family == trio.socket.AF_INET6:
        sock.setsockopt(trio.socket.IPPROTO_IPV6, trio.socket.IPV6_V6ONLY, 0)
    await sock.bind((str(address.ip), address.port))
    sock.listen(128)
    return [trio.SocketListener(sock)]


async def _serve_pages(node: Node, listeners: list[list[trio.SocketListener]], quit_now: trio.Event) -> None:
    voice = node.voice
    admin = Admin(partial(_dump, node), voice.levels, quit_now.set, node.pods.stop_accepting)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_metrics, listeners[0], Scrape(voice.metrics, voice.figures), voice.boundary)
        nursery.start_soon(serve_readiness, listeners[1], voice.readiness, voice.boundary)
        nursery.start_soon(serve_admin, listeners[2], admin, voice.boundary)


def _dump(node: Node) -> dict[str, Any]:
    certificates = [
        {
            "identity": str(each.identity),
            "state": "Available" if node.certificates.current(each.identity) else "Unavailable",
            "certChain": _chain(node, each.identity),
        }
        for each in node.certificates.expiring()
    ]
    return {
        **dump_world(node.hold.world),
        "certificates": certificates,
        "workloadState": node.pods.dump(),
        "version": {"version": __version__},
        "config": {
            name: str(getattr(node.settings, name))
            for name in node.settings.__dataclass_fields__
            if name != "auth_token"
        },
    }


def _chain(node: Node, identity: Any) -> list[dict[str, str]]:
    held = node.certificates.current(identity)
    if held is None:
        return []
    return [
        {
            "serialNumber": str(held.serial),
            "validFrom": held.not_before.isoformat(),
            "expirationTime": held.not_after.isoformat(),
        }
    ]


async def _follow_world(node: Node, plane: ControlPlane, received: trio.Event) -> None:
    """Subscribe for as long as we run; while there is no control plane the world stays as it is."""
    settings, voice = node.settings, node.voice
    described = describe_node(
        f"ztunnel~1.1.1.1~{settings.node}.ztunnel-system~ztunnel-system.svc.cluster.local",
        {"NODE_NAME": settings.node, "CLUSTER_ID": settings.cluster},
    )
    subscriber = Subscriber(described, settings.network)
    figures = XdsFigures(voice.figures)

    def observe(update: Update) -> None:
        figures.received(update.type_url, 0)
        for reason in update.rejected:
            voice.log.warn("resource rejected", reason=reason)
        voice.readiness.detail("resources rejected", "\n".join(subscriber.rejected))
        if subscriber.complete and not received.is_set():
            received.set()
            voice.readiness.done(_STATE)

    pause = _RETRY_SECONDS[0]
    while True:
        try:
            await subscribe(*plane.open_session(), node.hold, subscriber, observe)
            figures.terminated("Complete")
            pause = _RETRY_SECONDS[0]
        except (PeerError, trio.WouldBlock) as error:
            voice.log.warn("xDS stream ended", error=str(error))
            figures.terminated("Error")
        await trio.sleep(pause)
        pause = min(pause * 2, _RETRY_SECONDS[1])


async def _serve_pods(node: Node, received: trio.Event) -> None:
    """Serve pods once the world is known: before that, every address would be a stranger's."""
    await received.wait()
    async with trio.open_nursery() as nursery:
        await nursery.start(node.pods.run)
        with node.voice.boundary():
            node.follower.resume()
        nursery.start_soon(_renew_lease, node)
        node.follower.watch(node.engine, node.voice.bug)


async def _renew_lease(node: Node) -> None:
    """The kernel's verdicts count only while we live, and can tell it otherwise."""
    while True:
        node.redirection.renew_lease(time.monotonic_ns())
        await trio.sleep(LEASE_SECONDS)


async def _keep_sessions(node: Node) -> None:
    while True:
        await trio.sleep(min(node.settings.pool_release_seconds, 10.0))
        node.tunnels.retire_idle(node.settings.pool_release_seconds)


async def _wait_for_the_end(quit_now: trio.Event) -> None:
    async with trio.open_nursery() as nursery:

        async def on_signal() -> None:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                async for _ in signals:
                    quit_now.set()

        nursery.start_soon(on_signal)
        await quit_now.wait()
        nursery.cancel_scope.cancel()


async def _drain(node: Node) -> None:
    """No new connections; those that live get until the deadline. What is pinned stays: captured calls are refused."""
    node.voice.log.info("draining", seconds=node.settings.termination_deadline_seconds)
    node.pods.stop_accepting()
    node.redirection.end_lease()
    node.tunnels.leave(lambda key: True)
    with trio.move_on_after(node.settings.termination_deadline_seconds):
        while node.ledger.streams:  # noqa: ASYNC110 (a count of the engine's, which knows no Trio events)
            await trio.sleep(0.05)
