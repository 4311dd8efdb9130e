"""Steps: faults are injected into ratings, for one user."""

from __future__ import annotations

from ztunnel.demo.bookinfo.place import BASE, JASON, Bookinfo
from ztunnel.demo.bookinfo.visit import Visit
from ztunnel.demo.claims.claim import Claim, Findings

_FEW, _MANY = 4, 20
_GIVES_UP_SECONDS = 6.0  # productpage asks reviews twice, three seconds each
_SLACK_SECONDS = 2.0
_NO_REVIEWS = "Error fetching product reviews!"
_NO_RATINGS = "Ratings service is currently unavailable"


def delay(place: Bookinfo, findings: Findings) -> None:
    """Note what a delay of seven seconds makes of the page."""
    place.apply(*BASE, JASON, "networking/virtual-service-ratings-test-delay")
    jason = place.look(_FEW, user="jason")
    slowest, quickest = max(visit.seconds for visit in jason), min(visit.seconds for visit in jason)
    text = f"jason waits {quickest:.1f} to {slowest:.1f} s, then: {_NO_REVIEWS}"
    ends = quickest >= _GIVES_UP_SECONDS - 0.1 and slowest <= _GIVES_UP_SECONDS + _SLACK_SECONDS
    findings.note(text, ends and all(visit.errors == (_NO_REVIEWS,) for visit in jason))
    _others_see_nothing(place, findings)


def abort(place: Bookinfo, findings: Findings) -> None:
    """Note what an injected error makes of the page."""
    place.apply(*BASE, JASON, "networking/virtual-service-ratings-test-abort")
    jason = place.look(_MANY, user="jason")
    failed = sum(visit.version == "v2" and set(visit.errors) == {_NO_RATINGS} for visit in jason)
    findings.note(f"jason, {failed} of {_MANY} times: {_NO_RATINGS}", failed == _MANY)
    _others_see_nothing(place, findings)


def _others_see_nothing(place: Bookinfo, findings: Findings) -> None:
    others = place.look(_MANY, user="martha")
    fine = sum(_is_fine(visit) for visit in others)
    findings.note(f"everybody else: {fine} of {_MANY} visits without fault", fine == _MANY)


def _is_fine(visit: Visit) -> bool:
    return visit.status == 200 and not visit.errors and visit.seconds < _SLACK_SECONDS


DELAY = Claim(
    5,
    "A delay of 7 s, for jason only, brings the bug of the page to light",
    f"{_FEW} visits of jason, which end when the page gives up; {_MANY} of martha",
    delay,
)
ABORT = Claim(
    6,
    "An abort with 500, for jason only, leaves the page without stars",
    f"{_MANY} visits each of jason and martha",
    abort,
)
