"""Response flags of the access log, several of them in one text (Envoy's ResponseFlagUtils)."""

from __future__ import annotations

from collections.abc import Iterable

from ztunnel.l7.reply import NO_FLAG

RETRIES_OVER = "URX"
OVERFLOW = "UO"
DELAYED = "DI"

_ORDER = (
    "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC", "URX", "SI",
    "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM",
)  # fmt: skip
"""Envoy's, of response_flag_utils.h."""


def joined(flags: Iterable[str]) -> str:
    """The flags, each once, in Envoy's order; `-` for none."""
    found = set(flags) - {NO_FLAG, ""}
    if len(found) < 2:
        return found.pop() if found else NO_FLAG
    known = [flag for flag in _ORDER if flag in found]
    return ",".join([*known, *sorted(found.difference(known))])
