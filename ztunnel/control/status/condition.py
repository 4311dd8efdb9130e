"""One condition of an object's status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MOST_MESSAGE: Final = 1024
"""Characters of a message: a status is read by people."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, without when it began."""

    type: str
    met: bool
    reason: str
    message: str


def cut(text: str) -> str:
    """A message of at most so many characters."""
    return text if len(text) <= MOST_MESSAGE else f"{text[:MOST_MESSAGE]}..."
