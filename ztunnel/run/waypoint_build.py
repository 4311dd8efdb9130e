"""Puts the parts of a waypoint together."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from random import Random, SystemRandom
from typing import Final

from ztunnel.authz.enforce import LiveConnections
from ztunnel.config import Settings
from ztunnel.flow.engine import Engine
from ztunnel.flow.turn import Turns
from ztunnel.hbone.ledger import Ledger
from ztunnel.hbone.terminate import TerminatedTunnel
from ztunnel.inbound.accept import PLAIN_RATE, Inbound, LocalPod
from ztunnel.inbound.serve import Handshakes, Serving
from ztunnel.kernel import netns
from ztunnel.l7.path import SPELLINGS, Spelling
from ztunnel.l7.routing.plan import Unrouted
from ztunnel.l7.routing.retry import Budget
from ztunnel.model.address import Endpoint, PeerAddress
from ztunnel.model.identity import SpiffeId
from ztunnel.model.mesh_defaults import MESH
from ztunnel.model.workload import Workload
from ztunnel.outbound.dial import Dialler
from ztunnel.outbound.find import Patience as SessionPatience
from ztunnel.outbound.find import Tunnels
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.run.collectors import Collectors
from ztunnel.run.follow import Knowledge
from ztunnel.run.limits import limits_of
from ztunnel.run.outlets import Outlets
from ztunnel.run.policies import follow_policies
from ztunnel.run.reporting import Reporting, now
from ztunnel.run.request_telemetry import telemetry_of
from ztunnel.run.waypoint_figures import register_figures
from ztunnel.state.change import Change
from ztunnel.state.hold import Hold
from ztunnel.state.world import World
from ztunnel.telemetry.figures import Tally
from ztunnel.telemetry.report import Report
from ztunnel.waypoint.answer import WaypointAcceptor
from ztunnel.waypoint.calls import ServiceCalls
from ztunnel.waypoint.client import Client
from ztunnel.waypoint.hold import Parts
from ztunnel.waypoint.rules.routing import Routers
from ztunnel.waypoint.upstream.connect import Servers
from ztunnel.waypoint.upstream.find import Here
from ztunnel.waypoint.way import Common, Patience, Watched

_UUID_4: Final = 4 << 76 | 2 << 62
_UUID_DRAWN: Final = (1 << 128) - 1 & ~(0xF << 76 | 3 << 62)
"""Version and variant of a UUID that is drawn, and which bits of it are (RFC 9562 section 5.4)."""
_STREAMS: Final = 100
"""Tunnels of one session (Istio's waypoint: max_concurrent_streams of connect_terminate)."""


@dataclass(slots=True)
class OwnPod:
    """The waypoint's own pod, as the handshakes know it."""

    uid: str
    network: PodNetwork
    serving: bool = True


@dataclass(slots=True)
class Waypoint:
    """A waypoint that runs."""

    settings: Settings
    reporting: Reporting
    knowledge: Knowledge
    engine: Engine
    ledger: Ledger
    pod: OwnPod
    parts: Parts
    handshakes: Handshakes
    dialler: Dialler
    tunnels: Tunnels
    outlets: Outlets


def build_waypoint(
    settings: Settings,
    knowledge: Knowledge,
    reporting: Reporting,
    workload: Workload,
    namespace: netns.NetworkNamespace,
) -> Waypoint:
    """One that is `workload`, and dials from that namespace. Nothing of it runs yet.

    Raises:
        ConfigError: a setting makes no sense.
    """
    hold, certificates = knowledge.hold, knowledge.certificates
    rng = Random(SystemRandom().getrandbits(256))  # for choices and ids, never for keys
    engine = Engine(reporting.bug)
    ledger = Ledger(replace(limits_of(settings), accept_streams=_STREAMS))
    write = reporting.access_log.write if settings.access_log else None
    report = Report(reporting.metrics, write, time.monotonic, time.time_ns, settings.log_format == "json")
    own = workload.addresses
    v4 = next((ip for ip in own if isinstance(ip, IPv4Address)), None)
    v6 = next((ip for ip in own if isinstance(ip, IPv6Address)), None)
    pod = OwnPod(workload.uid, PodNetwork(namespace.cookie, namespace, v4, v6, own))
    connect = settings.connect_timeout_seconds
    patience = SessionPatience(connect, answer_seconds=1.5 * connect)
    dialler = Dialler(engine, ledger, certificates, now, patience)
    tunnels = Tunnels(engine, ledger, certificates, patience, dialler.ask)
    hold.subscribe(tunnels.changed)
    here = Here(workload.uid, pod.network, hold, rng, engine.clock)
    live: set[Watched] = set()
    servers = Servers(engine, tunnels, here, ledger.held, connect)
    calls = ServiceCalls(Client(engine, servers.connect, rng), lambda: (hold.world, here.workload))
    collectors = Collectors(calls, engine.post, lambda: hold.world, workload.namespace)
    telemetry, outlets = telemetry_of(settings, reporting, workload, hold, collectors)
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
        Patience(settings.request_head_seconds, settings.stream_idle_seconds),
        refused=refusals.add,
        spelling=_spelling_of(settings, hold),
        rng=rng,
        budget=Budget(),
    )
    parts = Parts(engine, here, servers, common, telemetry, report, tells_identity=settings.tells_identity)
    parts.hops = settings.trusted_proxies
    if knowledge.on_demand is not None:
        parts.on_demand = knowledge.on_demand
    follow_policies(parts, reporting)
    _follow_retries(parts.routers, hold)
    inbound = Inbound(engine, hold, LiveConnections(), report, Turns(engine, PLAIN_RATE), held=ledger.held)
    handshakes = Handshakes(inbound, ledger, certificates, now, partial(_begin, parts))
    waypoint = Waypoint(
        settings, reporting, knowledge, engine, ledger, pod, parts, handshakes, dialler, tunnels, outlets
    )
    register_figures(reporting.figures, ledger, parts)
    return waypoint


def _begin(
    parts: Parts, _inbound: Inbound, _pod: LocalPod, ends: tuple[Endpoint, PeerAddress], identity: SpiffeId
) -> Serving:
    return Serving(WaypointAcceptor(parts, ends, identity).requested, TerminatedTunnel)


def _spelling_of(settings: Settings, hold: Hold) -> Spelling:
    """What is done with paths: as the mesh config of the moment has it, or else the setting."""
    spelling = Spelling()

    def follow(_before: World, world: World, _change: Change) -> None:
        defaults = world.defaults.get(MESH)
        said = defaults.path_normalization if defaults is not None else ""
        spelling.respell = SPELLINGS.get(said or settings.path_normalization)

    follow(hold.world, hold.world, Change())
    hold.subscribe(follow)
    return spelling


def _follow_retries(routers: Routers, hold: Hold) -> None:
    """What is tried again of requests without routes is as the mesh config of the moment has it."""

    def follow(_before: World, world: World, _change: Change) -> None:
        defaults = world.defaults.get(MESH)
        said = defaults.retries if defaults is not None else None
        if said != routers.unrouted.said:
            routers.unrouted = Unrouted(said)

    follow(hold.world, hold.world, Change())
    hold.subscribe(follow)


def _new_id(rng: Random) -> bytes:
    """An `x-request-id`: a UUID of version 4."""
    digits = b"%032x" % (rng.getrandbits(128) & _UUID_DRAWN | _UUID_4)
    return b"%b-%b-%b-%b-%b" % (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
