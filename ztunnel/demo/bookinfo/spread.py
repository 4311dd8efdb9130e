"""Step: the page is put together through the waypoint, and every version of reviews gets its share."""

from __future__ import annotations

from ztunnel.demo.bookinfo.binomial import bounds
from ztunnel.demo.bookinfo.place import NAMESPACE, Bookinfo
from ztunnel.demo.bookinfo.visit import statuses, versions
from ztunnel.demo.claims.claim import Claim, Findings

_VISITS, _FEW = 60, 4
_COLORS = {"v1": "", "v2": "black", "v3": "red"}
_REQUESTS = "istio_requests_total"


def measure(place: Bookinfo, findings: Findings) -> None:
    """Note what is seen without any route."""

    def counted() -> float:
        return sum(
            place.samples().total(_REQUESTS, destination_app=app, destination_workload_namespace=NAMESPACE)
            for app in ("productpage", "details", "reviews")
        )

    begin = counted()
    place.look(_FEW)  # connections stand
    place.until("the first requests are counted", lambda: counted() >= begin + 3 * _FEW)
    before = counted()
    visits = place.look(_VISITS)
    findings.note(f"{_VISITS} visits: {dict(statuses(visits))}", statuses(visits) == {200: _VISITS})
    low, high = bounds(_VISITS, 1 / 3)
    seen = versions(visits)
    shares = ", ".join(f"{version} {seen[version]}" for version in _COLORS)
    even = seen.keys() == _COLORS.keys() and all(low <= count <= high for count in seen.values())
    findings.note(f"{shares}; each {low} to {high}", even)
    wrong = [visit for visit in visits if visit.color != _COLORS.get(visit.version)]
    findings.note("v1 shows no stars, v2 black ones, v3 red ones", not wrong)
    wanted = before + 3 * _VISITS
    place.until("the waypoint has counted all requests", lambda: counted() >= wanted)
    now = counted()
    findings.note(f"{_REQUESTS} grew by {now - before:.0f}, three a visit", now == wanted)


STEP = Claim(
    1,
    "The page comes through the waypoint, from every version of reviews",
    f"{_VISITS} visits without any route; the metrics of the waypoint",
    measure,
)
