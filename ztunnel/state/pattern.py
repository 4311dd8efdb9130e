"""Regular expressions in manifests, checked where they stand."""

from __future__ import annotations

import re
from typing import Final

from ztunnel.state.field import Field

_MOST: Final = 1024
"""Characters of one."""


def read_pattern(place: Field) -> str:
    """The regular expression that this is; a fault where it is none, or too long."""
    text = place.as_text()
    if len(text) > _MOST:
        place.fault(f"a regular expression has at most {_MOST} characters")
        return ""
    try:
        re.compile(text)
    except re.error as error:
        place.fault(f"not a regular expression: {error}")
        return ""
    return text
