"""Where tokens stand in a request, and how they are taken out of it (Envoy's jwt_authn extractor).

Whatever stands in such a place is taken for a token: of a header, parameter or cookie that stands twice,
both, so that no application reads one that was not looked at."""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from ztunnel.l7.request import Request
from ztunnel.model.jwt import JwtRule

_TOKEN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


class In(Enum):
    """Part of a request."""

    HEADER = "header"
    PARAM = "param"
    COOKIE = "cookie"


class Place(NamedTuple):
    """Where a token may stand; `prefix` comes before it in a header."""

    part: In
    name: bytes
    prefix: bytes = b""


USUAL: Final = (Place(In.HEADER, b"authorization", b"Bearer "), Place(In.PARAM, b"access_token"))
"""Where a rule that names no places has its tokens."""


def places_of(rule: JwtRule) -> tuple[Place, ...]:
    """Where tokens of its issuer may stand."""
    named = (
        *(Place(In.HEADER, one.name.lower().encode(), one.prefix.encode()) for one in rule.headers),
        *(Place(In.PARAM, name.encode()) for name in rule.params),
        *(Place(In.COOKIE, name.encode()) for name in rule.cookies),
    )
    return named or USUAL


def tokens_at(request: Request, place: Place) -> list[bytes]:
    """What stands there, unread."""
    if place.part is In.HEADER:
        found = (value for name, value in request.fields if name == place.name)
        return [token for value in found if (token := _after(value, place.prefix)) is not None]
    if place.part is In.PARAM:
        return [value for name, value in _params(request.path) if name == place.name]
    return [value for name, value in _cookies(request) if name == place.name]


def take_out(request: Request, place: Place) -> None:
    """Take the place out of the request: all headers of its name, or all parameters. Cookies stay: they are
    the application's own (so does Envoy have it)."""
    if place.part is In.HEADER:
        request.fields = [field for field in request.fields if field[0] != place.name]
    elif place.part is In.PARAM:
        path, mark, query = request.path.partition(b"?")
        kept = [part for part in query.split(b"&") if unquote_to_bytes(part.partition(b"=")[0]) != place.name]
        rest = b"&".join(kept)
        request.path = path + mark + rest if rest else path


def _after(value: bytes, prefix: bytes) -> bytes | None:
    """What follows `prefix`, wherever that stands, from the first character of a token on; None without."""
    if not prefix:
        return value
    at = value.find(prefix)
    if at < 0:
        return None
    begin = at + len(prefix)
    for index in range(begin, len(value)):
        if value[index] in _TOKEN:
            return value[index:]
    return value


def _params(path: bytes) -> list[tuple[bytes, bytes]]:
    pairs = (part.partition(b"=") for part in path.partition(b"?")[2].split(b"&"))
    return [(unquote_to_bytes(name), unquote_to_bytes(value)) for name, _, value in pairs]


def _cookies(request: Request) -> list[tuple[bytes, bytes]]:
    found = []
    for name, value in request.fields:
        if name == b"cookie":
            for part in value.split(b";"):
                key, _, text = part.partition(b"=")
                text = text.strip()
                if len(text) > 1 and text.startswith(b'"') and text.endswith(b'"'):
                    text = text[1 : len(text) - 1]
                found.append((key.strip(), text))
    return found
