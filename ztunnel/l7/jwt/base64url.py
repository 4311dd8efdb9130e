"""Base64url without padding, in its one spelling (RFC 7515 section 2; RFC 4648 section 3.5: the bits that are
over are zero)."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

_ALPHABET: Final = re.compile(rb"[A-Za-z0-9_-]*")
_LAST: Final = {2: frozenset(b"AQgw"), 3: frozenset(b"AEIMQUYcgkosw048")}
"""By how many characters the last group has, those that it may end in."""


def decode(untrusted: bytes) -> bytes:
    """The bytes of it.

    Raises:
        ValueError: it is none, has padding, or is another spelling of what it is.
    """
    over = len(untrusted) % 4
    if over == 1 or not _ALPHABET.fullmatch(untrusted):
        raise ValueError("no base64url")
    if over and untrusted[-1] not in _LAST[over]:
        raise ValueError("bits are over in base64url")
    return urlsafe_b64decode(untrusted + b"=" * (-over % 4))


def encode(octets: bytes) -> bytes:
    """Without padding."""
    return urlsafe_b64encode(octets).rstrip(b"=")
