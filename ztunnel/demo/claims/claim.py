"""A claim of the mesh, what was found when it was measured, and whether it holds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ztunnel.errors import ConfigError, Fault

Place = TypeVar("Place")
"""What is measured."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure, in words that an operator understands, and whether it is what the claim says."""

    text: str
    holds: bool


@dataclass(slots=True)
class Findings:
    """What is found while a claim is measured, in order."""

    found: list[Finding] = field(default_factory=list)

    def note(self, text: str, holds: bool = True) -> bool:
        """Write one figure down; gives `holds` back."""
        self.found.append(Finding(text, holds))
        return holds


@dataclass(frozen=True, slots=True)
class Claim(Generic[Place]):
    """What the mesh promises.

    Attributes:
        number: as users name it.
        title: the promise, in one sentence.
        how: how it is checked.
        measure: measures it in a place, and leaves that as it was. What it notes down decides; an error on
            the way is a failure.
    """

    number: int
    title: str
    how: str
    measure: Callable[[Place, Findings], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A claim that was measured. `error` is what kept it from being measured to its end, else empty."""

    claim: Claim[Any]
    found: tuple[Finding, ...]
    seconds: float
    error: str = ""

    @property
    def holds(self) -> bool:
        """Whether everything was measured, and nothing speaks against the claim."""
        return bool(self.found) and not self.error and all(each.holds for each in self.found)


def select(claims: Sequence[Claim[Place]], only: Collection[int]) -> tuple[Claim[Place], ...]:
    """The claims of these numbers, all where there are none, in their own order.

    Raises:
        ConfigError: a number that no claim has.
    """
    known = [claim.number for claim in claims]
    unknown = sorted(set(only) - set(known))
    if unknown:
        numbers = ", ".join(map(str, unknown))
        raise ConfigError(Fault("--only", 0, numbers, f"the claims are numbered {known[0]} to {known[-1]}"))
    return tuple(claim for claim in claims if not only or claim.number in only)


def parse_numbers(text: str) -> tuple[int, ...]:
    """`1,7` as users write it; empty for all.

    Raises:
        ConfigError: it is not that.
    """
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise ConfigError(Fault("--only", 0, text, "not numbers with commas between them")) from error
