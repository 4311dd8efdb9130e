"""Builds the parts of a node proxy, and hands each what it needs."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, NamedTuple

from ztunnel.authz.direct import judge_live_direct
from ztunnel.authz.enforce import LiveConnections
from ztunnel.config import Settings
from ztunnel.flow.engine import Engine
from ztunnel.flow.share import Shares
from ztunnel.flow.turn import Turns
from ztunnel.forward.answer import Forwarding
from ztunnel.hbone.ledger import Ledger
from ztunnel.identity.rotate import Certificates
from ztunnel.inbound.accept import PLAIN_RATE, Inbound
from ztunnel.inbound.serve import PLACES as HANDSHAKES
from ztunnel.inbound.serve import Handshakes
from ztunnel.kernel.sockets import Keepalive, Listening
from ztunnel.kernel.watchdog import HANG_SECONDS, Watchdog
from ztunnel.model.workload import SameNode
from ztunnel.outbound.accept import Memory, Mesh, Outbound
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
from ztunnel.pods.listen import Listeners
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
from ztunnel.run.limits import limits_of
from ztunnel.run.load import prepare
from ztunnel.run.owner import Owner
from ztunnel.run.reporting import Reporting, now
from ztunnel.run.watch import Hooks
from ztunnel.state.change import Change
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
class Proxy:
    """The parts of a running node proxy, wherever its pods come from. `live` is what is open into pods; what
    goes out of them is in `outbound.calls`."""

    settings: Settings
    reporting: Reporting
    engine: Engine
    hold: Hold
    ledger: Ledger
    certificates: Certificates
    outbound: Outbound
    tunnels: Tunnels
    dialler: Dialler
    inbound: Inbound
    handshakes: Handshakes
    live: LiveConnections
    watchdog: Watchdog
    knowledge: Knowledge
    exits: StallExits


@dataclass(frozen=True, slots=True)
class Node(Proxy):
    """Those of one whose pods are redirected by our programs."""

    pods: Pods
    redirection: Redirection
    direct: DirectFlows
    follower: Follower
    addresses: MeshAddresses
    outside: OutsideCalls
    forwarding: Forwarding
    waiting: WaitingCalls
    owner: Owner
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


def open_redirection(
    settings: Settings, repairs: Repairs, inherited: Mapping[int, Listeners] | None = None
) -> Opened:
    """Our programs run in the kernel, and this process is exempt from them. Blocks. `inherited`: the
    listeners of a predecessor that has stepped back.

    Raises:
        Unsupported: the machine lacks something, or forbids it. What was there before is as it was.
    """
    wanted, root = prepare(settings, inherited)
    pins = wanted.pins
    with ExitStack() as undo:
        redirection = undo.enter_context(Redirection.open(pins))
        exemption = Exemption(redirection.cgroups, root, repairs.repaired)
        undo.callback(exemption.close)
        lock = partial(try_lock, wanted)
        installation = Installation(Pins(pins), root, redirection.map_descriptors, lock)
        undo.pop_all()
    return Opened(redirection, exemption, installation, root, Pins(pins))


class Core(NamedTuple):
    """What the other parts are built on."""

    engine: Engine
    ledger: Ledger
    report: Report


def build_core(settings: Settings, reporting: Reporting) -> Core:
    engine = Engine(reporting.bug)
    engine.half_closed.seconds = settings.half_closed_seconds
    ledger = Ledger(limits_of(settings))
    write = reporting.access_log.write if settings.access_log else None
    wants = reporting.access_log.wants
    report = Report(
        reporting.metrics, write, time.monotonic, time.time_ns, settings.log_format == "json", wants
    )
    say = reporting.log.scoped("rbac").info
    report.trials = Trials(reporting.figures, say, time.monotonic)
    if settings.tracing_endpoint:
        from ztunnel.run.node_spans import node_spans  # httpx2 and h2 are for those who have a collector

        report.spans = node_spans(settings, reporting)
    return Core(engine, ledger, report)


class Capture(NamedTuple):
    """By what means pods are captured: our programs, or others' rules, where all of these are None."""

    redirection: Redirection | None = None
    direct: DirectFlows | None = None
    exemption: Exemption | None = None
    memory: Memory | None = None
    pins: Path | None = None


def build_proxy(
    settings: Settings, knowledge: Knowledge, reporting: Reporting, core: Core, capture: Capture
) -> Proxy:
    engine, ledger, report = core
    hold, certificates = knowledge.hold, knowledge.certificates
    live = LiveConnections()
    hold.subscribe(lambda _, world, change: _rejudge(live, world, change))
    keepalive = keepalive_of(settings)
    # The far end has as long to reach its application, and some more to say so.
    connect = settings.connect_timeout_seconds
    patience = Patience(connect, answer_seconds=1.5 * connect, keepalive=keepalive)
    dialler = Dialler(engine, ledger, certificates, now, patience)
    tunnels = Tunnels(engine, ledger, certificates, patience, dialler.ask)
    hold.subscribe(tunnels.changed)
    rng = Random(SystemRandom().getrandbits(256))  # for choices and trace ids, never for keys
    direct = capture.direct is not None
    same_node = settings.same_node if direct else SameNode.MTLS
    mesh = Mesh(settings.node, same_node, direct, settings.connect_timeout_seconds, rng, keepalive)
    room = Shares(_places(reporting, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    inbound = Inbound(engine, hold, live, report, Turns(engine, PLAIN_RATE), room=room, held=ledger.held)
    if capture.redirection is not None:
        inbound = replace(inbound, turn_away=capture.redirection.turn_away)
    outbound = Outbound(
        engine, hold, report, capture.redirection, tunnels, capture.direct, mesh, Calls(room, ledger.held),
        exemption=capture.exemption, memory=capture.memory,
    )  # fmt: skip
    handshakes = Handshakes(inbound, ledger, certificates, now)
    return Proxy(
        settings, reporting, engine, hold, ledger, certificates, outbound, tunnels, dialler, inbound,
        handshakes, live, Watchdog(exit_seconds=HANG_SECONDS), knowledge,
        StallExits(settings.run_dir, capture.pins or Path("none")),
    )  # fmt: skip


def build_node(
    settings: Settings,
    knowledge: Knowledge,
    reporting: Reporting,
    redirection: Redirection,
    machine: Machine = NO_MACHINE,
) -> Node:
    core, hold = build_core(settings, reporting), knowledge.hold
    engine, report = core.engine, core.report
    direct_live = LiveConnections(judge_live_direct(settings.same_node))
    direct = DirectFlows(engine, redirection, hold, report, direct_live)
    capture = Capture(redirection, direct, machine.exemption, pins=machine.pins)
    proxy = build_proxy(settings, knowledge, reporting, core, capture)
    forwarding = Forwarding(engine, redirection, hold, report, direct.pods)
    find = NamedNamespaces(settings.pod_netns) if settings.pod_netns else KubeletPods(settings.pod_logs)
    pods = Pods(
        Ways(proxy.outbound, proxy.inbound, proxy.handshakes, proxy.certificates),
        find,
        Reports(reporting.log.scoped("pods"), reporting.readiness, reporting.repairs),
        Listening(settings.ipv6, keepalive_of(settings)),
        Starting(redirection.starts, settings.strict_start, find, NEVER | {settings.pod_namespace}),
    )
    if machine.pins is not None:
        pods.left_out.exceptions = Detachments(settings.run_dir, machine.pins)
    return Node(
        **parts_of(proxy),
        pods=pods,
        redirection=redirection,
        direct=direct,
        follower=Follower(direct, hold),
        addresses=MeshAddresses(redirection.addresses, hold, settings.node),
        outside=OutsideCalls(engine, redirection, hold, report, direct.pods),
        forwarding=forwarding,
        waiting=WaitingCalls(engine, redirection.held, proxy.outbound.takers),
        owner=Owner(settings.daemon_set, settings.node, reporting.log.scoped("kube")),
        machine=machine,
    )


def parts_of(proxy: Proxy) -> dict[str, Any]:
    """Its parts by name, for one that has more."""
    return {each.name: getattr(proxy, each.name) for each in fields(proxy)}


def _places(reporting: Reporting, files: int) -> int:
    """Connections that there are descriptors for, when handshakes and files of our own have theirs; of so
    many `files` that may be open."""
    places = max((files - HANDSHAKES - min(_OWN_FILES, files // 4)) // _PER_CONNECTION, 1)
    if places < _FEW:
        reason = "raise the limit of open files (ulimit -n, LimitNOFILE=) to 65536 or more"
        reporting.log.warn("few connections", at_once=places, open_files=files, reason=reason)
    return places


def keepalive_of(settings: Settings) -> Keepalive | None:
    if not settings.keepalive:
        return None
    return Keepalive(
        math.ceil(settings.keepalive_time_seconds),
        math.ceil(settings.keepalive_interval_seconds),
        settings.keepalive_retries,
    )


def _rejudge(live: LiveConnections, world: World, change: Change) -> None:
    live.rejudge(world, change)
