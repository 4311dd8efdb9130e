"""What makes header fields malformed (RFC 9113 sections 8.2, 8.3 and 8.5): an error of their stream, whoever
they are for."""

from __future__ import annotations

from typing import Final

from ztunnel.errors import PeerError
from ztunnel.http2.fields import USUAL, Fields
from ztunnel.http2.frame import Code

_IN_NAMES: Final = bytes(
    each for each in range(0x21, 0x100) if each not in b":\x7fABCDEFGHIJKLMNOPQRSTUVWXYZ"
)
_SPACE: Final = 0x20
_TAB: Final = 0x09
_COLON: Final = 0x3A
# Numbers: to look for bytes in bytes, an exception is raised within and taken back.
_NUL: Final = 0x00
_CR: Final = 0x0D
_LF: Final = 0x0A
_CONNECTION_SPECIFIC: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_SOUND: Final = frozenset(USUAL) - {b"te"}
"""Names with which nothing is wrong, whatever their value."""
_REQUEST: Final = frozenset((b":method", b":scheme", b":authority", b":path"))
_RESPONSE: Final = frozenset((b":status",))


def check_request(untrusted: Fields) -> None:
    """Raises PeerError where a request is malformed. One that is not for us, such as a GET, is not."""
    pseudo = _check(untrusted, _REQUEST)
    if pseudo.get(b":method") == b"CONNECT":
        if len(pseudo) != 2 or b":authority" not in pseudo:
            raise _malformed("a CONNECT has an authority, and neither scheme nor path")
    elif not (b":method" in pseudo and b":scheme" in pseudo and pseudo.get(b":path")):
        raise _malformed("a request without method, scheme or path")


def check_response(untrusted: Fields) -> None:
    """Raises PeerError where a response is malformed."""
    status = _check(untrusted, _RESPONSE).get(b":status", b"")
    if len(status) != 3 or not status.isdigit():
        raise _malformed("a response without a status")


def check_trailers(untrusted: Fields) -> None:
    """Raises PeerError where trailers are malformed."""
    _check(untrusted, frozenset())


def _check(untrusted: Fields, allowed: frozenset[bytes]) -> dict[bytes, bytes]:
    """Check names and values; returns the pseudo-header fields. What concerns single octets is looked for in
    all of them at once: each step over a field costs more than most fields have octets."""
    pseudo: dict[bytes, bytes] = {}
    behind = False
    names: list[bytes] = []
    values: list[bytes] = []
    for name, value in untrusted:
        values.append(value)
        if value and (_is_blank(value[0]) or _is_blank(value[-1])):
            raise _malformed("a value with blanks around it")
        if name in _SOUND:
            behind = True
        elif name and name[0] == _COLON:
            if behind or name in pseudo or name not in allowed:
                raise _malformed("a pseudo-header field that is unknown, comes twice, or behind others")
            pseudo[name] = value
        else:
            behind = True
            _check_name(name, value)
            names.append(name)
    if names and b"".join(names).translate(None, _IN_NAMES):
        raise _malformed("a field name with a capital letter, a blank or a control character")
    octets = b"".join(values)
    if _NUL in octets or _CR in octets or _LF in octets:
        raise _malformed("a value with a control character")
    return pseudo


def _is_blank(octet: int) -> bool:
    return octet in (_SPACE, _TAB)


def _check_name(name: bytes, value: bytes) -> None:
    """Raises PeerError; what is in the name is looked at later."""
    if not name:
        raise _malformed("a field without a name")
    if name in _CONNECTION_SPECIFIC or (name == b"te" and value != b"trailers"):
        raise _malformed("a field that is about an HTTP/1.1 connection")


def _malformed(why: str) -> PeerError:
    return PeerError(f"malformed fields: {why}", Code.PROTOCOL_ERROR)
