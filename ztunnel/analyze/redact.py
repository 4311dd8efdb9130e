"""Takes out of a text what nobody else may read: private keys, tokens, passwords."""

from __future__ import annotations

import re
from typing import Final

GONE: Final = "[removed]"

_KEY = re.compile(r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.*?(-----END \1-----|\Z)", re.DOTALL)
_ENCODED_KEY = re.compile(r"LS0tLS1CRUdJTi[A-Za-z0-9+/=]{16,}")
"""`-----BEGIN` in base64, as Secrets have it; certificates, which are no secret, go with it."""

_JWT = re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*")
_BEARER = re.compile(r"(?i)(authorization\"?\s*[:=]\s*\"?(?:bearer|basic)\s+)[^\s\",]+")
_NAMED = re.compile(
    r"(?i)(\b[\w.-]*(?:password|passwd|secret_?key|api_?key|access_?key|auth_?token|client_?secret)\"?\s*[:=]\s*)"
    r"(\"[^\"\n]*\"|'[^'\n]*'|[^\s,}\]]+)"
)


def redact(text: str) -> str:
    """The text without private keys (PEM, also in base64), JWTs, credentials of HTTP, and the values of what
    is named like a password."""
    text = _KEY.sub(rf"-----BEGIN \1----- {GONE}", text)
    text = _ENCODED_KEY.sub(GONE, text)
    text = _JWT.sub(GONE, text)
    text = _BEARER.sub(rf"\g<1>{GONE}", text)
    return _NAMED.sub(rf"\g<1>{GONE}", text)
