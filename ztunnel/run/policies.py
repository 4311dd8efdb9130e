"""Keeps what passes a waypoint true to its policies, and counts what those that decide nothing match."""

from __future__ import annotations

import time
from functools import partial

from ztunnel.l7.rule import Decision
from ztunnel.run.reporting import Reporting
from ztunnel.state.delta import Change
from ztunnel.state.world import World
from ztunnel.telemetry.figures import Tally
from ztunnel.telemetry.trial import Trials
from ztunnel.waypoint.answer import Parts


def follow_policies(parts: Parts, reporting: Reporting) -> None:
    """Judge what is under way again whenever policies change, and count dry runs and audits, from now on."""
    say = reporting.log.scoped("rbac").info
    trials = Trials(reporting.figures, say, time.monotonic, "request")
    audits = reporting.figures.tally(
        "ztunnel_policy_audits_total",
        "What AUDIT policies matched of what was let through",
        ["policy"],
    )
    parts.note = partial(_note, trials, audits)
    parts.here.hold.subscribe(partial(_changed, parts))


def _note(trials: Trials, audits: Tally, decision: Decision, who: str, called: str) -> None:
    trials.note(decision.tried, who, called)
    for policy in decision.audited:
        audits.add(policy)


def _changed(parts: Parts, _before: World, _world: World, change: Change) -> None:
    """New requests are judged by the new world at once; those under way in the engine's next round."""
    if change.http or change.services or parts.here.uid in change.reclassified:
        parts.engine.post(parts.rejudge)
