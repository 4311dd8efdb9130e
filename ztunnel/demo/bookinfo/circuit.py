"""Step: what is too much for a service is refused at once."""

from __future__ import annotations

from ztunnel.demo.bookinfo.place import BASE, Bookinfo, flagged
from ztunnel.demo.bookinfo.visit import statuses
from ztunnel.demo.claims.claim import Claim, Findings

_PARALLEL, _TAKEN = 4, 2
_PATH = "/api/v1/products/0/reviews"
_TRIES = 2
"""Of the page for each visit; one that passes at the second was refused at the first."""


def measure(place: Bookinfo, findings: Findings) -> None:
    """Note what becomes of four visits where one call is taken and one may wait, and each takes a second."""
    place.apply(*BASE, "networking/reviews-circuit")
    place.look(1, path=_PATH)  # the one connection stands: nobody is refused because it is still being made
    before = flagged(place, "UO")
    visits = place.look(_PARALLEL, path=_PATH, parallel=_PARALLEL)
    seen = statuses(visits)
    refused = [visit.seconds for visit in visits if visit.status == 503]
    findings.note(
        f"{_PARALLEL} visits at a time: {dict(seen)}", seen == {200: _TAKEN, 503: _PARALLEL - _TAKEN}
    )
    findings.note(
        f"the slowest refusal came after {max(refused, default=9.9):.2f} s", max(refused, default=9.9) < 0.9
    )
    least = _TRIES * len(refused)
    place.until("the refusals are counted", lambda: flagged(place, "UO") - before >= least)
    counted = flagged(place, "UO") - before
    findings.note(
        f"{counted:.0f} requests have the flag UO: all {_TRIES} tries of {len(refused)} refused visits, "
        "and one at most of each of the others",
        least <= counted <= least + (_TRIES - 1) * seen[200],
    )


STEP = Claim(
    10,
    "A circuit breaker: one call of reviews, one that waits, the rest is refused",
    f"{_PARALLEL} visits at a time, of reviews that take a second",
    measure,
)
