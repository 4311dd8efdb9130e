"""Literals of CEL: numbers, texts and durations, as they are written."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

_ESCAPE: Final = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))")
_ESCAPED: Final = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "'": "'", "`": "`", "?": "?"}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|ms|s|m|h))+")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)")
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_MOST: Final = (1 << 63) - 1


def number(text: str) -> int | float:
    """Of 64 bits. Raises ValueError."""
    if text.startswith("0x"):
        value = int(text, 16)
    elif text.isdigit():
        value = int(text)
    else:
        return float(text)
    if value > _MOST:
        raise ValueError(f"a number of more than 64 bits: {text}")
    return value


def unquoted(text: str) -> str:
    """Without its quotes and escapes. Raises ValueError."""
    if text[0] in "rR":
        return text[2:-1]

    def plain(found: re.Match[str]) -> str:
        if found[1] or found[2]:
            return chr(int(found[1] or found[2], 16))
        if found[3] not in _ESCAPED:
            raise ValueError(f"\\{found[3]} is no character of a text")
        return _ESCAPED[found[3]]

    return _ESCAPE.sub(plain, text[1:-1])


def duration(text: str) -> timedelta:
    """`1h30m`, `1.5s`. Raises ValueError."""
    if not _DURATION.fullmatch(text) or len(text) > 64:
        raise ValueError(f"no duration: {text!r}; one is written '1.5s', '20ms', '1h30m'")
    seconds = sum(float(found[1]) * _SECONDS[found[2]] for found in _PART.finditer(text))
    if seconds > 1e9:
        raise ValueError(f"a duration that is too long: {text!r}")
    return timedelta(seconds=seconds)
