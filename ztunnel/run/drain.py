"""Drains a node that is to end: nothing new, and time for what lives."""

from __future__ import annotations

import trio

from ztunnel.errors import Drained
from ztunnel.run.build import Node
from ztunnel.run.stop import Stop

_GOODBYE_SECONDS = 0.1
_LOOK_SECONDS = 0.05
_DRAINING = "draining"


def refuse_new(node: Node) -> None:
    """No new connections, neither by us nor by the kernel; those that live go on. What is pinned goes on
    refusing."""
    node.reporting.log.info("draining")
    node.reporting.readiness.pend(_DRAINING)
    node.pods.stop_accepting()
    node.redirection.end_lease()
    node.tunnels.leave(lambda key: True)


async def drain(node: Node, stop: Stop) -> None:
    """Those that live get until the deadline, unless the end is urged. Then they are ended, with a reason in
    the log; flows that the kernel carries by itself live on."""
    calls, inbound = node.outbound.calls, node.live
    with trio.move_on_after(node.settings.termination_deadline_seconds):
        # The counts are the engine's, which knows no Trio events.
        while (len(calls) or len(inbound)) and not stop.urged.is_set():  # noqa: ASYNC110
            await trio.sleep(_LOOK_SECONDS)
    drained = Drained("connection closed due to connection drain")
    calls.abort(drained)
    inbound.abort_all(drained)
    await trio.sleep(_GOODBYE_SECONDS)  # answers and resets leave with the engine's next rounds
