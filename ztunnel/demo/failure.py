"""What the laboratory cannot do, in one sentence that says how to go on."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class LaboratoryFailed(Exception):
    """A command cannot be carried out; the message is all that the user needs to see."""


class Ambiguous(LaboratoryFailed):
    """A name that several have."""


def unknown(kind: str, name: str, known: Iterable[str]) -> LaboratoryFailed:
    """The error for a name that is not there, with the nearest ones that are."""
    names = sorted(known)
    near = get_close_matches(name, names, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names) or 'none'}"
    return LaboratoryFailed(f"no {kind} {name!r} in the laboratory; {hint}")
