"""Runs a node proxy whose pods Istio's CNI agent names and its rules redirect, in the place of Istio's
ztunnel: no program of ours is loaded.

```
world received ──> agent connected ──> its snapshot: ready ──SIGTERM──> no new connections, drain ──> end
```

A successor listens beside us by SO_REUSEPORT before we are told to end, as with Istio's ztunnel; so nothing
is handed over.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from random import Random, SystemRandom

import trio

from ztunnel.config import Settings
from ztunnel.errors import Unsupported
from ztunnel.flow.drive import drive
from ztunnel.kernel import capability
from ztunnel.kernel.sockets import Listening
from ztunnel.kernel.watchdog import EXIT_SECONDS
from ztunnel.pods.hold import Ways
from ztunnel.pods.repair import Reports
from ztunnel.run.build import Capture, Proxy, build_core, build_proxy, keepalive_of, parts_of
from ztunnel.run.drain import drain, serve_on
from ztunnel.run.dump import Compose, dump_proxy
from ztunnel.run.figures import register_common
from ztunnel.run.follow import ControlPlane, Knowledge, follow
from ztunnel.run.keep import flush_log, give_back, say_what_starts, set_up_process, watch_thread
from ztunnel.run.load import redirection_of
from ztunnel.run.pages import Listeners, Orders, listen, serve_private, serve_public
from ztunnel.run.reporting import Reporting
from ztunnel.run.stop import Stop
from ztunnel.zds.affinity import AffinityTable
from ztunnel.zds.relay import NameServers
from ztunnel.zds.serve import AgentPods, Inside

_KEEP_SECONDS = 10.0
_DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class AgentNode(Proxy):
    """The parts of such a node."""

    pods: AgentPods


def build_agent_node(settings: Settings, knowledge: Knowledge, reporting: Reporting) -> AgentNode:
    core = build_core(settings, reporting)
    proxy = build_proxy(settings, knowledge, reporting, core, Capture(memory=AffinityTable()))
    pods = AgentPods(
        Ways(proxy.outbound, proxy.inbound, proxy.handshakes, proxy.certificates),
        settings.node,
        Reports(reporting.log.scoped("pods"), reporting.readiness, reporting.repairs),
        Inside(
            Listening(settings.ipv6, keepalive_of(settings), settings.inpod_port_reuse, transparent=True),
            settings.packet_mark,
            NameServers(settings.resolv_conf) if settings.dns_capture else None,
        ),
    )
    return AgentNode(**parts_of(proxy), pods=pods)


async def run_agent_node(settings: Settings, plane: ControlPlane, reporting: Reporting, stop: Stop) -> None:
    """Run until the end is asked for, and drain.

    Raises:
        Unsupported: a capability is missing, or a proxy with programs of ours has captured this node's pods.
            ConfigError: a port is taken. Both in a group, and nothing was done to any pod.
    """
    _require(settings)
    set_up_process()
    listeners = await listen(settings)
    with ExitStack() as ends:
        ends.callback(listeners.close)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reporting.writer.run)
            nursery.start_soon(serve_public, reporting, listeners)
            say_what_starts(reporting, settings)
            knowledge = Knowledge(settings, plane)
            nursery.start_soon(follow, settings, reporting, knowledge)
            stop.started()
            await run_agent_parts(build_agent_node(settings, knowledge, reporting), listeners, stop)
            reporting.log.info("ended", node=settings.node)
            nursery.cancel_scope.cancel()


def _require(settings: Settings) -> None:
    """One node is owned by one proxy: programs that are left would capture calls that the rules redirect."""
    capability.require(capability.REDIRECTED, "the node proxy")
    pins = redirection_of(settings).pins
    if pins.exists():
        raise Unsupported(
            f"programs of a proxy that redirects pods itself are pinned at {pins}: take that one away first, "
            f"then run `ztunnel clean --pins {pins}`"
        )


async def run_agent_parts(node: AgentNode, listeners: Listeners, stop: Stop) -> None:
    """Every part of the node, each in its task, until the end is asked for and the drain is over."""
    register_common(node)
    node.pods.register(node.reporting.figures)
    contain, ending = node.reporting.contain, _Ending(node)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_thread, node)
            nursery.start_soon(drive, node.engine)
            orders = Orders(partial(_dump, node), stop.ask, ending.refuse_new)
            nursery.start_soon(serve_private, node, listeners, orders)
            nursery.start_soon(node.dialler.run, contain, node.tunnels)
            nursery.start_soon(node.handshakes.run, contain)
            if node.reporting.sender is not None:
                nursery.start_soon(node.reporting.sender)
            nursery.start_soon(_serve_pods, node)
            nursery.start_soon(_keep_sessions, node)
            nursery.start_soon(flush_log, node)
            nursery.start_soon(give_back)
            await stop.asked.wait()
            left_seconds = node.settings.termination_deadline_seconds
            if not node.pods.succeeded:  # else it has what is new
                left_seconds = await serve_on(node, stop, ending.over)
            ending.refuse_new()
            await drain(node, stop, left_seconds)
            nursery.cancel_scope.cancel()
    finally:
        node.engine.close()


class _Ending:
    """Nothing new is taken up from here on, asked for once or twice."""

    def __init__(self, node: AgentNode) -> None:
        self._node = node
        self.over = trio.Event()

    def refuse_new(self) -> None:
        if self.over.is_set():
            return
        self.over.set()
        node = self._node
        node.reporting.log.info("draining")
        node.reporting.readiness.pend(_DRAINING)
        node.pods.stop_accepting()
        node.tunnels.leave(lambda key: True)


def _dump(node: AgentNode) -> Compose:
    return dump_proxy(node, node.pods.dump(), ())


async def _serve_pods(node: AgentNode) -> None:
    """Serve pods once the world is known: before that, every address would be a stranger's."""
    await node.knowledge.received.wait()
    node.watchdog.exit_seconds = EXIT_SECONDS
    await node.pods.run(node.settings.inpod_uds, Random(SystemRandom().getrandbits(64)))


async def _keep_sessions(node: AgentNode) -> None:
    while True:
        await trio.sleep(min(node.settings.pool_release_seconds, _KEEP_SECONDS))
        node.tunnels.retire_idle(node.settings.pool_release_seconds)
