"""Drains a node that is to end: nothing new, and time for what lives."""

from __future__ import annotations

import trio

from ztunnel.errors import Drained
from ztunnel.run.build import Node, Proxy
from ztunnel.run.owner import Owner
from ztunnel.run.stop import Stop

_GOODBYE_SECONDS = 0.1
_LAST_SECONDS = 1.0
"""For what is under way when nothing new is taken up any more."""

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


async def serve_on(node: Proxy, stop: Stop, over: trio.Event, least_seconds: float = 0.0) -> float:
    """The end is asked for, and nobody has taken over yet: a successor that starts when we have ended serves
    new connections only then. So we do while those that live now have their time, but for its last part; and
    for `least_seconds` in any case.

    Returns:
        Seconds of that time that are left; less than all where they were used up, or somebody has taken over.
    """
    deadline, begun = node.settings.termination_deadline_seconds, trio.current_time()
    last = min(_LAST_SECONDS, deadline / 2)
    if node.outbound.calls or len(node.live):
        node.reporting.log.info("serving on", seconds=deadline - last)
    node.reporting.readiness.pend(_DRAINING)
    calls, inbound = node.outbound.calls.all(), node.live.all()
    with trio.move_on_after(deadline - last):
        while not stop.urged.is_set() and not over.is_set():
            ended = not calls & node.outbound.calls.all() and not inbound & node.live.all()
            if ended and trio.current_time() - begun >= least_seconds:
                break
            await trio.sleep(_LOOK_SECONDS)
    return max(deadline - (trio.current_time() - begun), last)


async def drain(node: Proxy, stop: Stop, seconds: float) -> None:
    """Those that live get so long, unless the end is urged. Then they are ended, with a reason in the log;
    flows that the kernel carries by itself live on."""
    calls, inbound = node.outbound.calls, node.live
    with trio.move_on_after(seconds):
        # The counts are the engine's, which knows no Trio events.
        while (len(calls) or len(inbound)) and not stop.urged.is_set():  # noqa: ASYNC110
            await trio.sleep(_LOOK_SECONDS)
    drained = Drained("connection closed due to connection drain")
    calls.abort(drained)
    inbound.abort_all(drained)
    await trio.sleep(_GOODBYE_SECONDS)  # answers and resets leave with the engine's next rounds


async def leave_if_uninstalled(node: Node, stop: Stop, owner: Owner) -> None:
    """While we serve on: where nobody is to come after us, let the pods go. Until cancelled."""
    await owner.gone()
    node.reporting.log.info(f"{owner.reason}: pods leave the mesh")
    stop.leaves = True
    node.pods.leave()
