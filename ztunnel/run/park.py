"""Leaves what a proxy listens on with the holder of its node, where it ends and nobody has taken over."""

from __future__ import annotations

from pathlib import Path

from ztunnel.run.handover import Channel
from ztunnel.run.incumbent import Giver, hand_over
from ztunnel.run.successor import connected
from ztunnel.telemetry.export import Log


async def park(place: Path, pins: Path, giver: Giver, log: Log) -> bool:
    """New connections wait from now on for the next proxy, in the backlogs that the holder at `place` has.

    Returns:
        Whether they do; not where there is no holder, or it does not take them: then they are refused.
    """
    try:
        channel = Channel(connected(place))
    except OSError:
        return False
    with channel:
        try:
            await channel.send({"keep": True})
        except OSError:
            return False
        return await hand_over(channel, pins, giver, log)
