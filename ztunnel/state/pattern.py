"""Regular expressions and formats in manifests, checked where they stand by what is to work with them."""

from __future__ import annotations

from ztunnel.l7.regex import Substitute, regex
from ztunnel.l7.substitution import Value
from ztunnel.state.field import Field


def read_pattern(place: Field) -> str:
    """The regular expression of RE2 that this is; a fault where it is none, or too large."""
    text = place.as_text()
    try:
        regex(text)
    except ValueError as error:
        place.fault(str(error))
        return ""
    return text


def read_substitute(place: Field, pattern: str) -> str:
    """What stands for what the pattern finds; a fault where it names a group that there is not."""
    text = place.as_text()
    try:
        Substitute(text, regex(pattern).groups)
    except ValueError as error:
        place.fault(str(error))
        return ""
    return text


def read_format(place: Field) -> str:
    """A header's value with Envoy's operators, `%%` for a percent sign; a fault where one is not known."""
    text = place.as_text()
    try:
        Value(text)
    except ValueError as error:
        place.fault(str(error))
        return ""
    return text
