"""What others have changed or taken away of ours, and was made again: counted, and told without flooding the
log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ztunnel.telemetry.figures import Figures

QUIET_SECONDS = 60.0
"""Who takes the same thing away again and again is told of once in this time."""

_REMEMBERED = 1000


class Say(Protocol):
    """A method of the log."""

    def __call__(self, message: str, **fields: str | int | float | bool) -> None: ...


class Repairs:
    """`ztunnel_repairs_total`, and its lines in the log."""

    def __init__(self, figures: Figures, say: Say, now: Callable[[], float]) -> None:
        """`now` gives monotonic seconds."""
        self._say = say
        self._now = now
        self._said: dict[tuple[str, str], float] = {}
        self._unsaid: dict[tuple[str, str], int] = {}
        self._tally = figures.tally(
            "ztunnel_repairs_total", "Repairs of what others had changed or removed", ["what"]
        )

    def repaired(self, what: str, where: str = "") -> None:
        """This was not as it has to be, and is again. `what` is one of a small number of words."""
        self._tally.add(what)
        key, now = (what, where), self._now()
        if now - self._said.get(key, now - QUIET_SECONDS) < QUIET_SECONDS:
            self._unsaid[key] = self._unsaid.get(key, 0) + 1
            return
        if len(self._said) >= _REMEMBERED:
            self._said.clear()
            self._unsaid.clear()
        self._said[key] = now
        again = self._unsaid.pop(key, 0)
        fields: dict[str, str | int | float | bool] = {"what": what}
        if where:
            fields["where"] = where
        if again:
            fields["again"] = again
        self._say("repaired what somebody else had changed", **fields)
