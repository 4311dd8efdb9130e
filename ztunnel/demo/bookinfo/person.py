"""Step: who is signed in decides which version is seen."""

from __future__ import annotations

from ztunnel.demo.bookinfo.place import BASE, JASON, Bookinfo
from ztunnel.demo.bookinfo.visit import versions
from ztunnel.demo.claims.claim import Claim, Findings

_VISITS = 40


def measure(place: Bookinfo, findings: Findings) -> None:
    """Note which version jason sees, somebody else, and nobody."""
    place.apply(*BASE, JASON)
    for user, version in (("jason", "v2"), ("martha", "v1"), ("", "v1")):
        seen = versions(place.look(_VISITS, user=user))
        findings.note(f"{user or 'nobody'}: {dict(seen)}", seen == {version: _VISITS})


STEP = Claim(
    4,
    "The user jason sees reviews v2, everybody else v1",
    f"{_VISITS} visits each, signed in as jason, as martha and not at all",
    measure,
)
