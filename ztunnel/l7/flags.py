"""Response flags of the access log, several of them in one text: in the order in which they came, as logs of
today's Envoy have them (`URX,UF`; older ones had an order of their own)."""

from __future__ import annotations

from collections.abc import Iterable

from ztunnel.l7.reply import NO_FLAG

RETRIES_OVER = "URX"
OVERFLOW = "UO"
DELAYED = "DI"


def joined(flags: Iterable[str]) -> str:
    """The flags, each once, in the order in which they came; `-` for none."""
    return ",".join(dict.fromkeys(flag for flag in flags if flag not in ("", NO_FLAG))) or NO_FLAG
