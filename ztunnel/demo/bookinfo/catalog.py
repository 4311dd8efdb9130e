"""All steps of the walk, in order."""

from __future__ import annotations

from ztunnel.demo.bookinfo import circuit, fault, limit, mirror, patience, person, shift, spread, token
from ztunnel.demo.bookinfo.place import Bookinfo
from ztunnel.demo.claims.claim import Claim

STEPS: tuple[Claim[Bookinfo], ...] = (
    spread.STEP,
    token.STEP,
    shift.STEP,
    person.STEP,
    fault.DELAY,
    fault.ABORT,
    mirror.STEP,
    patience.TIMEOUT,
    patience.RETRY,
    circuit.STEP,
    limit.STEP,
)
