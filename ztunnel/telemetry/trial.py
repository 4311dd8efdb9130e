"""What policies under trial (`istio.io/dry-run`) would have done: counted for each connection or request, and
logged for the first of its kind in a minute."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from ztunnel.model.address import Endpoint
from ztunnel.telemetry.figures import Figures, Tally
from ztunnel.telemetry.journey import Journey

_QUIET_SECONDS = 60.0
_REMEMBERED = 1000
"""Kinds of refusal (policy, source, destination) that are kept quiet at a time; beyond, none is logged."""


class Tried(Protocol):
    """The part of `authz.verdict.Trial` that is needed."""

    @property
    def policy(self) -> str: ...

    @property
    def refuses(self) -> bool: ...

    @property
    def why(self) -> str: ...


class Write(Protocol):
    """Logs a message of level INFO with its fields."""

    def __call__(self, message: str, **fields: str) -> None: ...


class Trials:
    """The trials of one process."""

    def __init__(
        self, figures: Figures, write: Write, clock: Callable[[], float], what: str = "connection"
    ) -> None:
        """`what` is judged."""
        self._what = what
        self._tally: Tally = figures.tally(
            "ztunnel_policy_dry_run_total",
            "What policies under trial would have made of connections that were admitted.",
            ["policy", "result"],
        )
        self._write = write
        self._clock = clock
        self._quiet: dict[tuple[str, str, str], float] = {}

    def count(self, tried: Iterable[Tried], journey: Journey, source: Endpoint) -> None:
        """One connection was admitted."""
        workload = journey.destination_workload
        called = f"{workload.namespace}/{workload.name}" if workload else str(journey.destination)
        self.note(tried, str(journey.source_identity or source.ip), called)

    def note(self, tried: Iterable[Tried], who: str, called: str) -> None:
        """What `who` asked of `called` was admitted."""
        for trial in tried:
            self._tally.add(trial.policy, "denied" if trial.refuses else "allowed")
            if trial.refuses:
                self._say(trial, who, called)

    def _say(self, trial: Tried, who: str, called: str) -> None:
        kind, now = (trial.policy, who, called), self._clock()
        if len(self._quiet) >= _REMEMBERED:
            self._quiet = {each: until for each, until in self._quiet.items() if until > now}
        if self._quiet.get(kind, 0.0) > now or len(self._quiet) >= _REMEMBERED:
            return
        self._quiet[kind] = now + _QUIET_SECONDS
        self._write(
            f"dry-run: {self._what} would be refused",
            policy=trial.policy,
            why=trial.why,
            src=who,
            dst=called,
        )
