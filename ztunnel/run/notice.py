"""The notice of a waypoint that is to end: it goes on as before until every node knows that it leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from ztunnel.run.stop import Stop

_LEAST_SECONDS: Final = 3.0
"""For the endpoints of its service to be without it, and every node proxy to know."""

_QUIET_SECONDS: Final = 1.0
"""Who asks for a tunnel does not know yet; for so long nobody has asked."""

_LOOK_SECONDS: Final = 0.05


async def give_notice(stop: Stop, quiet_seconds: Callable[[], float], seconds: float) -> float:
    """Wait while somebody may not know yet, which takes long where no control plane says so: three seconds at
    least and half of all at most, unless the end is urged.

    Args:
        quiet_seconds: for how long nobody has asked for a tunnel.
        seconds: how long what is under way may go on.

    Returns:
        Seconds that are left of these: what the notice took beyond its least is part of them.
    """
    most = seconds / 2
    least, begun, passed = min(_LEAST_SECONDS, most), trio.current_time(), 0.0
    while passed < least or (passed < most and quiet_seconds() < _QUIET_SECONDS):
        with trio.move_on_after(_LOOK_SECONDS):
            await stop.urged.wait()
            break
        passed = trio.current_time() - begun
    return seconds - max(passed - least, 0.0)
