"""The value of grpc-timeout: up to eight digits and a unit (gRPC's PROTOCOL-HTTP2.md)."""

from __future__ import annotations

import math
import re
from typing import Final

_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_MOST = 99_999_999


def render(seconds: float) -> str:
    """In the finest unit that holds it, rounded up: the server does not give up before the client.

    Args:
        seconds: zero or more; what is beyond 11,000 years is cut to that.
    """
    for unit in ("u", "m", "S", "M", "H"):
        number = math.ceil(seconds / _UNITS[unit] - 1e-9)
        if number <= _MOST:
            return f"{max(number, 0)}{unit}"
    return f"{_MOST}H"


def parse(untrusted: str) -> float | None:
    """Seconds; None for what is no timeout."""
    found = _TIMEOUT.fullmatch(untrusted)
    return int(found[1]) * _UNITS[found[2]] if found else None
