"""Runs a node proxy until it is told to end, and drains it.

```
loaded, pinned ──> world received ──> pods enrolled ──> ready ──SIGTERM──> no new connections ──> end
```

What is pinned stays in force after the end.
"""

from __future__ import annotations

import resource
import signal
import time

import trio

from ztunnel.config import Settings
from ztunnel.errors import PeerError
from ztunnel.run.build import ControlPlane, Node, build_node, open_redirection
from ztunnel.run.figures import register_figures
from ztunnel.run.pages import listen, serve_pages
from ztunnel.run.voice import STATE, Voice
from ztunnel.state.subscribe import subscribe
from ztunnel.telemetry.component import XdsFigures
from ztunnel.xds.subscriber import Subscriber, Update, describe_node

LEASE_SECONDS = 0.5
_RETRY_SECONDS = (0.01, 15.0)


async def run_node(settings: Settings, plane: ControlPlane, voice: Voice) -> None:
    """Run until SIGTERM, SIGINT or the admin page ends it, with a drain.

    Raises:
        Unsupported: the machine lacks something.
        ConfigError: a port is taken.
    """
    _raise_file_limit()
    listeners = await listen(settings)
    redirection = await trio.to_thread.run_sync(open_redirection, settings)
    with redirection:
        node = build_node(settings, plane, voice, redirection)
        register_figures(node)
        async with trio.open_nursery() as nursery:
            quit_now = trio.Event()
            nursery.start_soon(voice.writer.run)
            nursery.start_soon(node.engine.run)
            nursery.start_soon(node.certificates.run)
            nursery.start_soon(serve_pages, node, listeners, quit_now)
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
            voice.readiness.done(STATE)

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
    """No new connections; those that live get until the deadline. What is pinned goes on refusing."""
    node.voice.log.info("draining", seconds=node.settings.termination_deadline_seconds)
    node.pods.stop_accepting()
    node.redirection.end_lease()
    node.tunnels.leave(lambda key: True)
    with trio.move_on_after(node.settings.termination_deadline_seconds):
        while node.ledger.streams:  # noqa: ASYNC110 (a count of the engine's, which knows no Trio events)
            await trio.sleep(0.05)
