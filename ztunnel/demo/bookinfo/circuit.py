"""Step: what is too much for a service is refused at once."""

from __future__ import annotations

from ztunnel.demo.bookinfo.place import BASE, Bookinfo, flagged
from ztunnel.demo.bookinfo.visit import statuses
from ztunnel.demo.claims.claim import Claim, Findings

_PARALLEL, _TAKEN = 4, 2


def measure(place: Bookinfo, findings: Findings) -> None:
    """Note what becomes of four calls where one is taken and one may wait, and each takes a second."""
    place.apply(*BASE, "networking/reviews-circuit")
    before = flagged(place, "UO")
    calls = place.look(_PARALLEL, path="/api/v1/products/0/reviews", parallel=_PARALLEL)
    seen = statuses(calls)
    refused = [call.seconds for call in calls if call.status == 503]
    findings.note(
        f"{_PARALLEL} calls at a time: {dict(seen)}", seen == {200: _TAKEN, 503: _PARALLEL - _TAKEN}
    )
    findings.note(
        f"the slowest refusal came after {max(refused, default=9.9):.2f} s", max(refused, default=9.9) < 0.9
    )
    twice = 2 * (_PARALLEL - _TAKEN)  # the page asks twice
    place.until("the refusals are counted", lambda: flagged(place, "UO") - before >= twice)
    counted = flagged(place, "UO") - before
    findings.note(f"{counted:.0f} requests have the flag UO, two for each call", counted == twice)


STEP = Claim(
    10,
    "A circuit breaker: one call of reviews, one that waits, the rest is refused",
    f"{_PARALLEL} calls at a time, of reviews that take a second",
    measure,
)
