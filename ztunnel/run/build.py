"""Builds the parts of a node proxy, and hands each what it needs."""

from __future__ import annotations

import math
import resource
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random, SystemRandom
from typing import NamedTuple

from ztunnel.authz.direct import judge_live_direct
from ztunnel.authz.enforce import LiveConnections
from ztunnel.config import Settings
from ztunnel.flow.engine import Engine
from ztunnel.flow.share import Shares
from ztunnel.flow.turn import Turns
from ztunnel.forward.answer import Forwarding
from ztunnel.hbone.ledger import Ledger
from ztunnel.http2.limits import Limits
from ztunnel.identity.rotate import Certificates
from ztunnel.inbound.accept import PLAIN_RATE, Inbound
from ztunnel.inbound.serve import PLACES as HANDSHAKES
from ztunnel.inbound.serve import Handshakes
from ztunnel.kernel.sockets import Keepalive, Listening
from ztunnel.kernel.watchdog import HANG_SECONDS, Watchdog
from ztunnel.outbound.accept import Mesh, Outbound
from ztunnel.outbound.connect import Calls
from ztunnel.outbound.defer import WaitingCalls
from ztunnel.outbound.dial import Dialler
from ztunnel.outbound.find import Patience, Tunnels
from ztunnel.outbound.follow import Follower
from ztunnel.outbound.observe import OutsideCalls
from ztunnel.outbound.oversee import DirectFlows
from ztunnel.outbound.teach import MeshAddresses
from ztunnel.pods.classify import NEVER, Starting
from ztunnel.pods.find import NamedNamespaces
from ztunnel.pods.follow import KubeletPods
from ztunnel.pods.hold import Ways
from ztunnel.pods.repair import Reports
from ztunnel.pods.serve import Pods
from ztunnel.redirect.attach import Redirection
from ztunnel.redirect.exempt import Exemption
from ztunnel.redirect.load import try_lock
from ztunnel.redirect.plan import Pins
from ztunnel.redirect.repair import Installation
from ztunnel.run.detach import Detachments
from ztunnel.run.exits import StallExits
from ztunnel.run.follow import Knowledge
from ztunnel.run.load import prepare
from ztunnel.run.owner import Owner
from ztunnel.run.reporting import Reporting, now
from ztunnel.run.watch import Hooks
from ztunnel.state.delta import Change
from ztunnel.state.hold import Hold
from ztunnel.state.world import World
from ztunnel.telemetry.repairs import Repairs
from ztunnel.telemetry.report import Report
from ztunnel.telemetry.trial import Trials

_OWN_FILES = 4096
_PER_CONNECTION = 2
_FEW = 4000
"""Descriptors: of our own (some 25 for each pod, maps, sessions, manifests), but no more than a quarter of
all; and of each connection at most. Room for fewer connections than a node with little to do has is said."""


class Machine(NamedTuple):
    """What is watched of the machine; nothing where no program of ours runs."""

    exemption: Exemption | None = None
    hooks: Hooks | None = None
    pins: Path | None = None


NO_MACHINE = Machine()


@dataclass(frozen=True, slots=True)
class Node:
    """The parts of a running node proxy."""

    settings: Settings
    reporting: Reporting
    engine: Engine
    redirection: Redirection
    hold: Hold
    ledger: Ledger
    certificates: Certificates
    outbound: Outbound
    tunnels: Tunnels
    dialler: Dialler
    handshakes: Handshakes
    follower: Follower
    addresses: MeshAddresses
    outside: OutsideCalls
    forwarding: Forwarding
    waiting: WaitingCalls
    watchdog: Watchdog
    pods: Pods
    live: LiveConnections
    """What is open into pods; what goes out of them is in `outbound.calls`."""
    knowledge: Knowledge
    owner: Owner
    exits: StallExits
    machine: Machine


@dataclass(frozen=True, slots=True)
class Opened:
    """Our programs, and this process exempt from them. Use as a context manager."""

    redirection: Redirection
    exemption: Exemption
    installation: Installation
    root: Path
    pins: Pins

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.exemption.close()
        self.installation.close()
        self.redirection.close()


def open_redirection(settings: Settings, repairs: Repairs) -> Opened:
    """Our programs run in the kernel, and this process is exempt from them. Blocks.

    Raises:
        Unsupported: the machine lacks something, or forbids it. What was there before is as it was.
    """
    wanted, root = prepare(settings)
    pins = wanted.pins
    with ExitStack() as undo:
        redirection = undo.enter_context(Redirection.open(pins))
        exemption = Exemption(redirection.cgroups, root, repairs.repaired)
        undo.callback(exemption.close)
        lock = partial(try_lock, wanted)
        installation = Installation(Pins(pins), root, redirection.map_descriptors, lock)
        undo.pop_all()
    return Opened(redirection, exemption, installation, root, Pins(pins))


def build_node(
    settings: Settings,
    knowledge: Knowledge,
    reporting: Reporting,
    redirection: Redirection,
    machine: Machine = NO_MACHINE,
) -> Node:
    hold, certificates = knowledge.hold, knowledge.certificates
    rng = Random(SystemRandom().getrandbits(256))  # for choices and trace ids, never for keys
    engine = Engine(reporting.bug)
    engine.half_closed.seconds = settings.half_closed_seconds
    ledger = Ledger(
        Limits(
            open_streams=settings.pool_max_streams,
            stream_window_bytes=settings.stream_window_bytes,
            session_window_bytes=settings.session_window_bytes,
            frame_bytes=settings.frame_bytes,
            ping_seconds=settings.ping_interval_seconds,
            pong_seconds=settings.ping_timeout_seconds,
            buffered_bytes=settings.buffer_limit_bytes,
        )
    )
    write = reporting.access_log.write if settings.access_log else None
    wants = reporting.access_log.wants
    report = Report(
        reporting.metrics, write, time.monotonic, time.time_ns, settings.log_format == "json", wants
    )
    say = reporting.log.scoped("rbac").info
    report.trials = Trials(reporting.figures, say, time.monotonic)
    live, direct_live = LiveConnections(), LiveConnections(judge_live_direct(settings.same_node))
    direct = DirectFlows(engine, redirection, hold, report, direct_live)
    hold.subscribe(lambda _, world, change: _rejudge(live, world, change))
    keepalive = _keepalive(settings)
    # The far end has as long to reach its application, and some more to say so.
    connect = settings.connect_timeout_seconds
    patience = Patience(connect, answer_seconds=1.5 * connect, keepalive=keepalive)
    dialler = Dialler(engine, ledger, certificates, now, patience)
    tunnels = Tunnels(engine, ledger, certificates, patience, dialler.ask)
    hold.subscribe(tunnels.changed)
    mesh = Mesh(settings.node, settings.same_node, True, settings.connect_timeout_seconds, rng, keepalive)
    room = Shares(_places(reporting, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    inbound = Inbound(engine, hold, live, report, Turns(engine, PLAIN_RATE), room=room, held=ledger.held)
    calls = Calls(room, ledger.held)
    outbound = Outbound(
        engine, hold, report, redirection, tunnels, direct, mesh, calls, exemption=machine.exemption
    )
    handshakes = Handshakes(inbound, ledger, certificates, now)
    forwarding = Forwarding(engine, redirection, hold, report, direct.pods)
    find = NamedNamespaces(settings.pod_netns) if settings.pod_netns else KubeletPods(settings.pod_logs)
    pods = Pods(
        Ways(outbound, inbound, handshakes, certificates),
        find,
        Reports(reporting.log.scoped("pods"), reporting.readiness, reporting.repairs),
        Listening(settings.ipv6, keepalive),
        Starting(redirection.starts, settings.strict_start, find, NEVER | {settings.pod_namespace}),
    )
    exits = StallExits(settings.run_dir, machine.pins or Path("none"))
    if machine.pins is not None:
        pods.left_out.exceptions = Detachments(settings.run_dir, machine.pins)
    return Node(
        settings, reporting, engine, redirection, hold, ledger, certificates, outbound, tunnels, dialler,
        handshakes,
        Follower(direct, hold), MeshAddresses(redirection.addresses, hold, settings.node),
        OutsideCalls(engine, redirection, hold, report, direct.pods), forwarding,
        WaitingCalls(engine, redirection.held, outbound.takers),
        Watchdog(exit_seconds=HANG_SECONDS), pods, live, knowledge,
        Owner(settings.daemon_set, reporting.log.scoped("kube")), exits, machine,
    )  # fmt: skip


def _places(reporting: Reporting, files: int) -> int:
    """Connections that there are descriptors for, when handshakes and files of our own have theirs; of so
    many `files` that may be open."""
    places = max((files - HANDSHAKES - min(_OWN_FILES, files // 4)) // _PER_CONNECTION, 1)
    if places < _FEW:
        reason = "raise the limit of open files (ulimit -n, LimitNOFILE=) to 65536 or more"
        reporting.log.warn("few connections", at_once=places, open_files=files, reason=reason)
    return places


def _keepalive(settings: Settings) -> Keepalive | None:
    if not settings.keepalive:
        return None
    return Keepalive(
        math.ceil(settings.keepalive_time_seconds),
        math.ceil(settings.keepalive_interval_seconds),
        settings.keepalive_retries,
    )


def _rejudge(live: LiveConnections, world: World, change: Change) -> None:
    live.rejudge(world, change)
