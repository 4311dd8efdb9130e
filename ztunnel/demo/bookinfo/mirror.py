"""Step: another version gets copies of requests, and nobody notices."""

from __future__ import annotations

from ztunnel.demo.bookinfo.binomial import bounds
from ztunnel.demo.bookinfo.place import BASE, Bookinfo
from ztunnel.demo.bookinfo.visit import versions
from ztunnel.demo.claims.claim import Claim, Findings

_VISITS, _SHARE = 120, 0.5


def measure(place: Bookinfo, findings: Findings) -> None:
    """Note who answers, and who is asked as well."""
    place.apply(*BASE, "networking/virtual-service-reviews-mirror-50-v3")
    before = place.asked("reviews-v3")
    seen = versions(place.look(_VISITS))
    findings.note(f"answers: {dict(seen)}", seen == {"v1": _VISITS})
    low, high = bounds(_VISITS, _SHARE)
    place.until("v3 has had its copies", lambda: place.asked("reviews-v3") - before >= low)
    place.look(4)  # what is still under way comes before these
    copies = place.asked("reviews-v3") - before
    findings.note(f"copies: v3 was asked {copies} times, expected {low} to {high}", low <= copies <= high + 4)


STEP = Claim(
    7,
    "Half of all calls are copied to reviews v3, and only v1 answers",
    f"{_VISITS} visits; the log of the pod that gets the copies",
    measure,
)
