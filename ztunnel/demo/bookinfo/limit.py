"""Step: so many requests of each user pass, and no more."""

from __future__ import annotations

from ztunnel.demo.bookinfo.place import BASE, Bookinfo, flagged, read
from ztunnel.demo.bookinfo.visit import versions
from ztunnel.demo.claims.claim import Claim, Findings

LIMIT = "networking/reviews-per-user"
_VISITS, _PASS = 12, 5


def measure(place: Bookinfo, findings: Findings) -> None:
    """Note how many visits show reviews, of two users and of somebody who is not signed in."""
    place.apply(*BASE, LIMIT)
    before, refused = flagged(place, "RL"), _VISITS - _PASS
    for user, wanted in (("jason", {"v1": _PASS, "": refused}), ("martha", {"v1": _PASS, "": refused})):
        seen = versions(place.look(_VISITS, user=user))
        findings.note(f"{user}: {_said(seen)}", seen == wanted)
    seen = versions(place.look(_VISITS))
    findings.note(f"nobody: {_said(seen)}", seen == {"v1": _VISITS})
    twice = 2 * 2 * refused  # the page asks twice
    place.until("the refusals are counted", lambda: flagged(place, "RL") - before >= twice)
    counted = flagged(place, "RL") - before
    findings.note(f"{counted:.0f} requests have the flag RL, two for each such visit", counted == twice)
    place.change(read(LIMIT), delete=True)


def _said(seen: dict[str, int]) -> str:
    return f"{seen.get('v1', 0)} visits show reviews, {seen.get('', 0)} do not"


STEP = Claim(
    11,
    "A rate limit: of each user five requests an hour come to reviews",
    f"{_VISITS} visits each, signed in as jason, as martha and not at all",
    measure,
)
