"""Steps: what is too slow is given up, and what fails is tried again."""

from __future__ import annotations

from ztunnel.demo.bookinfo.binomial import bounds
from ztunnel.demo.bookinfo.place import BASE, Bookinfo
from ztunnel.demo.bookinfo.visit import statuses
from ztunnel.demo.claims.claim import Claim, Findings

_FEW, _CALLS = 4, 200
_TIMEOUT_SECONDS = 0.5
_SLACK_SECONDS = 0.8
_FAULTY = "networking/ratings-faulty"


def timeout(place: Bookinfo, findings: Findings) -> None:
    """Note how soon reviews that take two seconds are given up."""
    place.apply(*BASE, "networking/virtual-service-reviews-timeout")
    visits = place.look(_FEW, path="/api/v1/products/0/reviews")
    findings.note(f"status {dict(statuses(visits))}", statuses(visits) == {504: _FEW})
    quickest, slowest = min(visit.seconds for visit in visits), max(visit.seconds for visit in visits)
    least = 2 * _TIMEOUT_SECONDS  # the page asks twice
    right = least <= quickest and slowest <= least + _SLACK_SECONDS
    findings.note(f"after {quickest:.2f} to {slowest:.2f} s, where it takes 2 s: twice half a second", right)


def retry(place: Bookinfo, findings: Findings) -> None:
    """Note how often ratings fail that fail half of the time, without and with retries."""
    for file, tries in (("virtual-service-ratings-no-retry", 1), ("virtual-service-ratings-retry", 4)):
        place.apply(*BASE, _FAULTY, f"networking/{file}")
        visits = place.look(_CALLS, path="/api/v1/products/0/ratings")
        failed = statuses(visits)[503]
        low, high = bounds(_CALLS, 0.5**tries)
        right = low <= failed <= high and statuses(visits)[200] == _CALLS - failed
        times = "tried once" if tries == 1 else f"tried up to {tries} times"
        findings.note(f"{times}: {failed} of {_CALLS} fail, expected {low} to {high}", right)


TIMEOUT = Claim(
    8,
    "Reviews that take longer than half a second are given up",
    f"{_FEW} calls while ratings take two seconds",
    timeout,
)
RETRY = Claim(
    9,
    "Three retries make one failure in sixteen of one in two",
    f"{_CALLS} calls each of ratings that answer half of all requests with 503",
    retry,
)
