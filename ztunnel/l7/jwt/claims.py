"""What a proved token says, as policies are asked about it.

As Istio's waypoint has it: `scope` and `permission`, which are strings in tokens, are lists with spaces
between their members (Envoy's NormalizePayload)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

Claims = Mapping[str, Any]
"""The payload of a token, as JSON has it, but for what is a list; empty without a token."""

NOBODY: Final[Claims] = {}

_LISTS: Final = ("scope", "permission")


def claims_of(payload: Mapping[str, Any], space_delimited: Iterable[str] = ()) -> Claims:
    """The claims of a payload; `space_delimited` are lists beside the usual ones."""
    found = dict(payload)
    for name in (*_LISTS, *space_delimited):
        value = found.get(name)
        if isinstance(value, str):
            found[name] = [each for each in value.split(" ") if each]
    return found


def texts_of(value: Any) -> tuple[str, ...]:
    """A string, or the strings of a list."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list):
        return tuple(each for each in value if isinstance(each, str))
    return ()
