"""Keeps what passes a waypoint true to its policies, and counts what those that decide nothing match."""

from __future__ import annotations

import time
from functools import partial

from ztunnel.l7.policy.rule import Decision
from ztunnel.run.reporting import Reporting
from ztunnel.state.change import Change
from ztunnel.state.world import World
from ztunnel.telemetry.figures import Tally
from ztunnel.telemetry.trial import Trials
from ztunnel.waypoint.hold import Parts


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
    _count_tokens(parts, reporting)
    _count_limits(parts, reporting)
    _count_questions(parts, reporting)


def _count_questions(parts: Parts, reporting: Reporting) -> None:
    figures, checks = reporting.figures, parts.checks
    outcomes = figures.tally(
        "ztunnel_waypoint_ext_authz_total",
        "What came of questions to external authorizers: allowed, denied, error, failure_mode_allowed (an "
        "error that let it through), unknown (there is none of that name)",
        ["provider", "outcome"],
    )
    checks.counted = outcomes.add
    figures.gauge(
        "ztunnel_waypoint_ext_authz_waiting",
        "Requests and connections that wait for an external authorizer",
        lambda: float(len(checks.live)),
    )


def _count_limits(parts: Parts, reporting: Reporting) -> None:
    figures, limiter = reporting.figures, parts.limiter
    refused = figures.tally(
        "ztunnel_waypoint_rate_limited_total",
        "Requests that were refused by a rate limit, by its policy and who has counted them (local, global)",
        ["policy", "scope"],
    )
    limiter.refused = refused.add
    limiter.asked = figures.tally(
        "ztunnel_waypoint_rate_limit_checks_total",
        "What rate limit services were asked, by policy and what came of it (ok, over_limit, error)",
        ["policy", "outcome"],
    ).add
    limits = limiter.limits
    figures.gauge(
        "ztunnel_waypoint_rate_limit_keys", "Token buckets of rate limits", lambda: float(limits.keys)
    )
    figures.counter(
        "ztunnel_waypoint_rate_limit_evictions_total",
        "Token buckets that were forgotten because one rule had too many (10,000)",
        lambda: limits.evicted,
    )


def _count_tokens(parts: Parts, reporting: Reporting) -> None:
    figures, authenticator = reporting.figures, parts.authenticator
    refused = figures.tally(
        "ztunnel_waypoint_tokens_refused_total", "Requests that were refused for their token", ["reason"]
    )
    authenticator.refused = refused.add
    proofs = authenticator.proofs
    figures.counter(
        "ztunnel_waypoint_signatures_total",
        "Signatures of tokens, by what came of them; remembered: it was known already",
        lambda: [
            (("proved",), proofs.proved),
            (("refuted",), proofs.refuted),
            (("remembered",), proofs.remembered),
        ],
        ["outcome"],
    )
    figures.gauge("ztunnel_waypoint_tokens", "Tokens that are known to be good", lambda: float(len(proofs)))
    figures.gauge(
        "ztunnel_waypoint_tokens_waiting",
        "Requests that wait for their token's signature to be checked",
        lambda: authenticator.waiting,
    )
    figures.counter(
        "ztunnel_waypoint_tokens_turned_away_total",
        "Requests that were answered 503 because too many waited for a signature",
        lambda: authenticator.turned_away,
    )


def _note(trials: Trials, audits: Tally, decision: Decision, who: str, called: str) -> None:
    trials.note(decision.tried, who, called)
    for policy in decision.audited:
        audits.add(policy)


def _changed(parts: Parts, _before: World, _world: World, change: Change) -> None:
    """New requests are judged by the new world at once; those under way in the engine's next round."""
    if change.http or change.services or parts.here.uid in change.reclassified:
        parts.engine.post(parts.rejudge)
