"""Step: traffic is shifted to another version, a tenth at first."""

from __future__ import annotations

from ztunnel.demo.bookinfo.binomial import bounds
from ztunnel.demo.bookinfo.place import BASE, Bookinfo
from ztunnel.demo.bookinfo.visit import versions
from ztunnel.demo.claims.claim import Claim, Findings

_VISITS = 200
_SHARES = {
    "virtual-service-reviews-90-10": 0.1,
    "virtual-service-reviews-50-v3": 0.5,
    "virtual-service-reviews-v3": 1.0,
}


def measure(place: Bookinfo, findings: Findings) -> None:
    """Note what share of all visits version 3 gets."""
    place.apply(*BASE)
    seen = versions(place.look(_VISITS))
    findings.note(f"all to v1: {dict(seen)}", seen == {"v1": _VISITS})
    for file, share in _SHARES.items():
        place.apply(*BASE, f"networking/{file}")
        seen = versions(place.look(_VISITS))
        low, high = bounds(_VISITS, share)
        right = low <= seen["v3"] <= high and seen["v1"] + seen["v3"] == _VISITS
        expected = f"{low} to {high}" if low != high else str(low)
        findings.note(
            f"{share:.0%} to v3: {seen['v3']} of {_VISITS}, expected {expected}; the rest to v1", right
        )


STEP = Claim(
    3,
    "Traffic shifts to reviews v3: none, 10 %, 50 %, all of it",
    f"{_VISITS} visits each; bounds that a true share leaves in one of a million runs",
    measure,
)
