"""Which pages of other origins may read responses (the Fetch standard, CORS protocol; Envoy's cors filter,
whose answers these are).

A preflight of an origin that is allowed is answered here. Responses of the server get what the rule says in
the place of what the server says, as far as the origin is allowed.
"""

from __future__ import annotations

from ztunnel.http1.head import Fields
from ztunnel.l7.request import Request
from ztunnel.l7.routing.comparison import Text
from ztunnel.model.route_policy import Cors

_ORIGIN = b"access-control-allow-origin"
_CREDENTIALS = b"access-control-allow-credentials"
_EXPOSED = b"access-control-expose-headers"
_ANY = b"*"


class CorsAnswers:
    """Those of one rule."""

    __slots__ = ("_credentials", "_exposed", "_forward", "_headers", "_max_age", "_methods", "_origins")

    def __init__(self, cors: Cors) -> None:
        """Raises ValueError, with a reason."""
        self._origins = [Text(each) for each in cors.origins]
        self._credentials = cors.credentials
        self._methods = _joined(cors.methods)
        self._headers = _joined(cors.headers)
        self._exposed = _joined(cors.exposed)
        self._max_age = b"" if cors.max_age_seconds is None else b"%d" % cors.max_age_seconds
        self._forward = cors.forward_unmatched

    def allowed(self, origin: bytes) -> bool:
        """Whether that one is."""
        return bool(origin) and any(each.meets(origin) for each in self._origins)

    def preflight(self, request: Request) -> Fields | None:
        """The answer to a preflight, without a status; None: the request is to be sent on. What is exposed is
        said here, too, as the Gateway API's HTTPRouteCORS asks for it."""
        method = request.get(b"access-control-request-method")
        origin = request.get(b"origin")
        if request.method != b"OPTIONS" or not method or not origin:
            return None
        if not self.allowed(origin):
            return None if self._forward else ()
        asked = request.get(b"access-control-request-headers")
        fields = [(_ORIGIN, origin), (b"vary", b"origin")]
        if self._credentials:
            fields.append((_CREDENTIALS, b"true"))
        if self._methods:
            fields.append((b"access-control-allow-methods", self._said(self._methods, method)))
        if self._headers:
            fields.append((b"access-control-allow-headers", self._said(self._headers, asked)))
        if self._exposed:
            fields.append((_EXPOSED, self._exposed))
        if self._max_age:
            fields.append((b"access-control-max-age", self._max_age))
        return tuple(field for field in fields if field[1])

    def shared(self, origin: bytes, fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The fields of a response to a page of that origin, which `allowed` is true of."""
        ours = {_ORIGIN, _CREDENTIALS} if self._credentials else {_ORIGIN}
        if self._exposed:
            ours.add(_EXPOSED)
        kept = [field for field in fields if field[0] not in ours]
        kept += [(_ORIGIN, origin), (b"vary", b"origin")]
        if self._credentials:
            kept.append((_CREDENTIALS, b"true"))
        if self._exposed:
            kept.append((_EXPOSED, self._exposed))
        return kept

    def _said(self, listed: bytes, asked: bytes) -> bytes:
        """With credentials a star means the method or header of that name (Fetch): what was asked for is
        said."""
        return asked if listed == _ANY and self._credentials else listed


def _joined(names: tuple[str, ...]) -> bytes:
    return b"*" if "*" in names else ",".join(names).encode()
