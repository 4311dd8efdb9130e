"""Runs a node proxy until it is told to end, and drains it.

```
loaded, pinned ──> world received ──> pods enrolled ──> ready ──SIGTERM──> no new connections ──> end
```

Metrics and readiness are served from the start, and say what is waited for. What is pinned stays in force
after the end, also where a part of the node raises: that is a bug, and ends the process.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import trio

from ztunnel.config import Connect, Settings
from ztunnel.errors import ConfigError, Unsupported
from ztunnel.flow.drive import drive
from ztunnel.kernel import netns
from ztunnel.kernel.watchdog import EXIT_SECONDS
from ztunnel.redirect.load import ensure_compiled
from ztunnel.run.build import Machine, Node, Opened, build_node, open_redirection
from ztunnel.run.drain import drain, leave_if_uninstalled, serve_on
from ztunnel.run.dump import dump_node
from ztunnel.run.figures import register_figures
from ztunnel.run.follow import ControlPlane, Knowledge, follow
from ztunnel.run.handover import holder_of, socket_of
from ztunnel.run.incumbent import serve_successors
from ztunnel.run.keep import flush_log, give_back, say_what_starts, set_up_process, watch_thread
from ztunnel.run.load import redirection_of
from ztunnel.run.pages import Listeners, Orders, are_taken, inherit, listen, serve_private, serve_public
from ztunnel.run.park import park
from ztunnel.run.remove import uninstall
from ztunnel.run.reporting import Reporting
from ztunnel.run.stop import Stop
from ztunnel.run.succession import Succession
from ztunnel.run.successor import Inherited, serving, take_over
from ztunnel.run.watch import Hooks, NodeClients, watch_hooks, watch_node_clients

LEASE_SECONDS = 0.5
_LOOK_SECONDS = 0.25
_OWNER_SECONDS = 6.0
"""After SIGTERM: so long it is asked whether the DaemonSet is there, on a busy machine more than twice."""

_REDIRECTION, _EXEMPTION = "redirection", "own cgroup"


async def run_node(settings: Settings, plane: ControlPlane, reporting: Reporting, stop: Stop) -> None:
    """Run until the end is asked for, and drain. Where a proxy serves this node already, take over from it
    once all is there to serve.

    Raises:
        Unsupported: the machine lacks something. ConfigError: a port is taken. Both in a group, and nothing
            was done to any pod.
    """
    set_up_process()
    place = socket_of(settings.run_dir, redirection_of(settings).pins)
    replaces = serving(place) != 0
    listeners = await _pages(settings, replaces)
    with ExitStack() as ends:
        if listeners is not None:
            ends.callback(listeners.close)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reporting.writer.run)
            if listeners is not None:
                nursery.start_soon(serve_public, reporting, listeners)
            say_what_starts(reporting, settings)
            knowledge = Knowledge(settings, plane)
            nursery.start_soon(follow, settings, reporting, knowledge)
            inherited = Inherited()
            if replaces:
                inherited = await _take_over(settings, place, knowledge, listeners is None)
                ends.callback(inherited.close)
            if listeners is None:
                listeners = inherit(inherited.pages) if inherited.pages else await listen(settings)
                ends.callback(listeners.close)
                nursery.start_soon(serve_public, reporting, listeners)
            reporting.readiness.pend(_REDIRECTION)
            opening = partial(open_redirection, settings, reporting.repairs, inherited.listeners)
            with await trio.to_thread.run_sync(opening) as opened:
                await trio.lowlevel.checkpoint_if_cancelled()
                hooks = await _watch_node(nursery, settings, opened, reporting)
                reporting.readiness.done(_REDIRECTION)
                stop.started()
                machine = Machine(opened.exemption, hooks, opened.pins.root)
                node = build_node(settings, knowledge, reporting, opened.redirection, machine)
                await run_parts(node, listeners, stop, inherited, place)
            if stop.leaves:
                await trio.to_thread.run_sync(uninstall, redirection_of(settings).pins, settings.run_dir)
            reporting.log.info("ended", node=settings.node)
            nursery.cancel_scope.cancel()


async def _pages(settings: Settings, replaces: bool) -> Listeners | None:
    """None where a predecessor in the same namespace has these ports, and is to hand them over."""
    try:
        return await listen(settings)
    except ConfigError as error:
        if replaces and are_taken(error):
            return None
        raise


async def _take_over(settings: Settings, place: Path, knowledge: Knowledge, pages: bool) -> Inherited:
    """What the predecessor has, once we have everything else."""
    wanted = redirection_of(settings)
    if settings.load_programs:
        await trio.to_thread.run_sync(ensure_compiled, wanted)
    await knowledge.prepare()
    return await take_over(place, wanted.pins, pages)


async def _watch_node(
    nursery: trio.Nursery, settings: Settings, opened: Opened, reporting: Reporting
) -> Hooks:
    with _node_namespace(settings) as home:
        clients = NodeClients(opened.redirection.cgroups, settings.node_clients, home.cookie, reporting)
    await nursery.start(watch_node_clients, clients, opened.root, home.inode)
    hooks = Hooks(opened.installation, opened.pins, reporting)
    nursery.start_soon(watch_hooks, hooks)
    return hooks


def _node_namespace(settings: Settings) -> netns.NetworkNamespace:
    """The node's own network namespace, which is not ours in a container that sees the node's processes."""
    if not settings.pod_netns:
        with suppress(OSError):
            return netns.NetworkNamespace.open("/proc/1/ns/net")
    return netns.current()


async def run_parts(
    node: Node,
    listeners: Listeners,
    stop: Stop,
    inherited: Inherited | None = None,
    place: Path | None = None,
) -> None:
    """Every part of the node, each in its task, until the end is asked for and the drain is over.

    The kernel's verdicts count no longer than this runs, also where a part raises; unless a successor has
    taken over.

    Args:
        inherited: what a predecessor has handed over.
        place: where a successor finds us; None: it does not.
    """
    register_figures(node)
    contain, succession = node.reporting.contain, Succession(node, listeners)
    left = inherited or Inherited()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_thread, node)
            nursery.start_soon(drive, node.engine)
            orders = Orders(partial(dump_node, node), stop.ask, succession.refuse_new)
            nursery.start_soon(serve_private, node, listeners, orders)
            nursery.start_soon(node.dialler.run, contain, node.tunnels)
            nursery.start_soon(node.handshakes.run, contain)
            if node.reporting.sender is not None:
                nursery.start_soon(node.reporting.sender)
            succeed = partial(_succeed, node, succession, stop, place)
            nursery.start_soon(_serve_pods, node, succession, left, succeed)
            nursery.start_soon(_keep_sessions, node)
            nursery.start_soon(flush_log, node)
            nursery.start_soon(give_back)
            await stop.asked.wait()
            await _tell_predecessor(left, succession)
            left_seconds = await _serve_on(node, stop, succession)
            if place is not None and not stop.leaves:
                await _park(node, succession)
            async with succession.settled:  # a successor may be about to take over
                succession.refuse_new()
            await drain(node, stop, left_seconds)
            nursery.cancel_scope.cancel()
    finally:
        if not succession.given:
            node.redirection.end_lease()
        node.engine.close()


async def _succeed(
    node: Node,
    succession: Succession,
    stop: Stop,
    place: Path | None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Hand over to whoever asks. Where that one ends before we are told to, somebody has to start again."""
    pins = node.machine.pins
    if place is None or pins is None:
        task_status.started()
        return
    reason = await serve_successors(place, pins, succession, node.reporting.log, task_status=task_status)
    if not stop.asked.is_set():
        node.reporting.log.warn("ends, to be started again", reason=reason)
        stop.exit_code = 1
        stop.ask()


async def _serve_on(node: Node, stop: Stop, succession: Succession) -> float:
    """As `drain.serve_on`; where the proxy is not replaced but taken away, its pods leave the mesh."""
    async with trio.open_nursery() as nursery:
        if node.owner and not succession.given:
            nursery.start_soon(leave_if_uninstalled, node, stop, node.owner)
        least = _OWNER_SECONDS if node.owner else 0.0
        left_seconds = await serve_on(node, stop, succession.over, least)
        while stop.leaves and _up(node):  # noqa: ASYNC110 (a reconciliation knows no Trio events)
            await trio.sleep(_LOOK_SECONDS)
        nursery.cancel_scope.cancel()
    return left_seconds


async def _park(node: Node, succession: Succession) -> None:
    """Where nobody has taken over, new connections wait with the holder until somebody does."""
    pins = node.machine.pins
    if pins is not None and not succession.over.is_set():
        await park(holder_of(node.settings.run_dir, pins), pins, succession, node.reporting.log)


async def _tell_predecessor(inherited: Inherited, succession: Succession) -> None:
    """It may have outlived us: then it is to be started again, and takes over."""
    if not succession.given:
        with suppress(Unsupported):
            await inherited.tell("leaving")


async def _serve_pods(
    node: Node,
    succession: Succession,
    inherited: Inherited,
    succeed: Callable[..., Awaitable[None]],
) -> None:
    """Serve pods once the world is known: before that, every address would be a stranger's."""
    await node.pods.starting.until(node.knowledge.received)
    node.redirection.renew_lease(time.monotonic_ns())  # what a predecessor has taught is void
    if node.settings.connect is Connect.DEFERRED and not inherited.since_ns:
        node.waiting.watch(time.monotonic_ns())
    elif not inherited.since_ns:
        node.redirection.held.hold(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_renew_lease, node, succession)
        node.pods.inherit(inherited.listeners)
        inherited.listeners = {}
        await nursery.start(node.pods.run)
        node.waiting.take(inherited.calls)
        succession.watch(inherited.since_ns)
        node.addresses.received()
        await inherited.tell("taken")
        node.knowledge.prepared()
        node.watchdog.exit_seconds = EXIT_SECONDS
        await nursery.start(succeed)
        nursery.start_soon(node.owner.try_out)
        nursery.start_soon(_announce, node)
        nursery.start_soon(_announce_pods, node, succession)
        if not node.redirection.forwards.supported:
            node.reporting.log.warn("the kernel has no netfilter programs: what pods forward is refused")


async def _announce_pods(node: Node, succession: Succession) -> None:
    """Until a successor tells of them."""
    report = node.knowledge.plane.report
    if report is None:
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.pods.announcer.run, report)
        await succession.over.wait()
        nursery.cancel_scope.cancel()


async def _renew_lease(node: Node, succession: Succession) -> None:
    """The kernel's verdicts count only while we live, and can tell it otherwise. While a successor takes
    over, both renew it."""
    while not succession.over.is_set():
        node.redirection.renew_lease(time.monotonic_ns())
        _look_where_we_are(node)
        with trio.move_on_after(LEASE_SECONDS):
            await succession.over.wait()


def _look_where_we_are(node: Node) -> None:
    """A proxy that has been moved to another cgroup would capture its own calls."""
    exemption, readiness = node.outbound.exemption, node.reporting.readiness
    if exemption is None:
        return
    exemption.look(time.monotonic())
    if exemption.trouble:
        readiness.pend(_EXEMPTION)
    else:
        readiness.done(_EXEMPTION)
    readiness.detail(_EXEMPTION, exemption.trouble)


def _up(node: Node) -> int:
    shown = node.pods.dump().values()
    return sum(each["state"] == "Up" for each in shown)


async def _announce(node: Node) -> None:
    """One line when the node is ready for the first time."""
    while node.reporting.readiness.pending(trio.current_time()):  # noqa: ASYNC110 (many parts make it so)
        await trio.sleep(_LOOK_SECONDS)
    world = node.hold.world
    node.reporting.log.info(
        "ready", pods=_up(node), workloads=len(world.workloads), policies=len(world.policies)
    )


async def _keep_sessions(node: Node) -> None:
    while True:
        await trio.sleep(min(node.settings.pool_release_seconds, 10.0))
        node.tunnels.retire_idle(node.settings.pool_release_seconds)
        node.direct.void_unproved(node.certificates.current)
