"""Brings a laboratory up, measures claims on it, shows what was found, and takes it down."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console

from ztunnel.demo.claims.claim import Claim, Findings, Outcome, Place
from ztunnel.demo.claims.shop import Shop
from ztunnel.demo.claims.table import progress, summary, table
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.operate import Laboratory
from ztunnel.errors import ConfigError

TTL_SECONDS = 8
"""How long a certificate lives during the demonstration, so that its rotation, at half of that, is seen."""

_WIDTH = 132  # of the table where no terminal says how wide it is


def perform(laboratory: Laboratory, claims: Sequence[Claim[Shop]], *, keep: bool) -> bool:
    """Show that the claims hold, or which do not; whether all do.

    The laboratory is taken down at the end, whatever happens; with `keep` it stays, whatever was found.

    Raises:
        LaboratoryFailed: it did not come up, or was up before and stays so, or did not go down.
    """
    console = new_console()
    begun = time.monotonic()
    with _short_lives():
        plan = laboratory.up()  # outside of the try: one that was up before is not ours to take down
        try:
            nodes, pods = len(plan.nodes), len(plan.pods)
            console.print(f"{nodes} nodes and {pods} pods are up after {time.monotonic() - begun:.1f} s.\n")
            with Shop(laboratory) as shop:
                outcomes = measure_all(claims, shop, console)
        finally:
            if not keep:
                laboratory.down()
    return show(outcomes, time.monotonic() - begun, console)


def measure_all(claims: Sequence[Claim[Place]], place: Place, console: Console) -> list[Outcome]:
    """Measure one after the other, with a line for each."""
    outcomes = []
    for claim in claims:
        with console.status(f"{claim.number} {claim.title}"):
            outcomes.append(measure(claim, place))
        console.print(progress(outcomes[-1]), soft_wrap=True)
    return outcomes


def show(outcomes: Sequence[Outcome], seconds: float, console: Console) -> bool:
    """Print the table of what was found in so many seconds; whether all holds."""
    console.print()
    console.print(table(outcomes))
    console.print(summary(outcomes, seconds))
    return all(outcome.holds for outcome in outcomes)


def measure(claim: Claim[Place], place: Place) -> Outcome:
    """Measure one claim. What keeps it from being measured is part of the outcome."""
    begun, findings, error = time.monotonic(), Findings(), ""
    try:
        claim.measure(place, findings)
    except (LaboratoryFailed, ConfigError, OSError, subprocess.SubprocessError) as failure:
        error = str(failure)
    return Outcome(claim, tuple(findings.found), time.monotonic() - begun, error)


def new_console() -> Console:
    """Colours on a terminal that wants them; elsewhere plain text, wide enough for the table."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH)


@contextmanager
def _short_lives() -> Iterator[None]:
    """Node proxies that are started in this block ask for certificates that live shortly; they inherit it."""
    before = os.environ.get("SECRET_TTL")
    os.environ["SECRET_TTL"] = f"{TTL_SECONDS}s"
    try:
        yield
    finally:
        if before is None:
            del os.environ["SECRET_TTL"]
        else:
            os.environ["SECRET_TTL"] = before
