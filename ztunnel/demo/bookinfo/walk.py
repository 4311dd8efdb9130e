"""Brings Bookinfo up behind a waypoint, walks through the steps, shows what was seen, and takes it down."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ztunnel.demo.bookinfo.place import Bookinfo, read
from ztunnel.demo.claims.claim import Claim
from ztunnel.demo.claims.perform import measure_all, new_console, show
from ztunnel.demo.load import Loaded
from ztunnel.demo.operate import Laboratory

_FILES = ("bookinfo", "client", "waypoint")


def walk(laboratory: Laboratory, steps: Sequence[Claim[Bookinfo]], *, keep: bool) -> bool:
    """Show that every step does what it says, or which do not; whether all do.

    The laboratory is taken down at the end, whatever happens; with `keep` it stays, whatever was seen.

    Raises:
        LaboratoryFailed: it did not come up, or was up before and stays so, or did not go down.
    """
    console = new_console()
    begun = time.monotonic()
    plan = laboratory.up(application())  # outside of the try: one that was up before is not ours to take down
    try:
        console.print(f"Bookinfo, {len(plan.pods)} pods, is up after {time.monotonic() - begun:.1f} s.\n")
        place = Bookinfo(laboratory)
        place.wait_for_waypoint()
        outcomes = measure_all(steps, place, console)
    finally:
        if not keep:
            laboratory.down()
    return show(outcomes, time.monotonic() - begun, console)


def application() -> Loaded:
    """The four services, the waypoint and the client."""
    return Loaded(tuple(read(*_FILES)), ())
