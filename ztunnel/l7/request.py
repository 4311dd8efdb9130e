"""A request as it is judged and sent on: checked, in one spelling, without what was for one connection only.

Both versions end here, so that a request of HTTP/2 can become one of HTTP/1.1 without meaning another one:
what is checked is checked for both. Headers are those that Istio's waypoint sets (Envoy's
ConnectionManagerUtility::mutateRequestHeaders with use_remote_address off, Istio's listener_waypoint.go).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from ztunnel.http1.framing import connection_options
from ztunnel.http1.head import Fields
from ztunnel.l7.field import OURS, can_stand_in_lines
from ztunnel.l7.path import normalize
from ztunnel.l7.reply import BAD_HOST, BAD_PATH, FORBIDDEN_UPGRADE, MALFORMED, NO_HOST, NO_ROUTE, Refused
from ztunnel.l7.trace import Context

_METHOD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")
_AUTHORITY: Final = re.compile(rb"(?:[0-9A-Za-z._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_ABSOLUTE: Final = re.compile(rb"(https?)://([^/?#]+)(/[!-~]*|\?[!-~]*)?", re.IGNORECASE)
_SCHEMES: Final = (b"http", b"https")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")

_NOT_PASSED_ON = OURS | frozenset(
    b"connection keep-alive proxy-connection transfer-encoding upgrade te http2-settings host expect".split()
)
_NEVER_NOMINATED: Final = frozenset(
    b"host content-length transfer-encoding x-forwarded-for x-forwarded-host x-forwarded-proto x-request-id "
    b"authorization cookie".split()
)
"""A client that has a hop remove these wants the next one to see another request (Envoy's
Utility::sanitizeConnectionHeader)."""

WEBSOCKET: Final = b"websocket"
"""The one protocol that is switched to. h2c and TLS are what Java's and Apache's clients offer with each
request, and do without (envoyproxy/envoy#7973, istio/istio#53239): passed over. Any other is refused. It may
be offered twice, as by a gateway before us (istio/istio#29427)."""

NO_CLAIMS: Final[Mapping[str, Any]] = {}

_SOURCE: Final = b"x-istio-source", b"waypoint"

NewId = Callable[[], bytes]


class Request:
    """One request.

    Attributes:
        scheme: that its client names; where it cannot (HTTP/1.1), what a proxy before us says of it
            (`x-forwarded-proto`: a gateway that ends TLS), else `http`.
        fields: in order, without pseudo-header fields, `host`, and what was for the connection.
        length: of the body in bytes, -1 where it is not said.
        upgrade: the protocol that the client wants to switch to; empty for none.
        claims: of the token that was verified, as JSON has them, those that are lists by blanks (`scope`) as
            lists; empty: there is none. Only who has verified a token sets them.
        has_id: whether the client has given it an `x-request-id`.
        trace: the span that it is, where spans are made.
    """

    __slots__ = (
        "authority", "claims", "fields", "has_id", "length", "method", "path", "scheme", "trace", "upgrade"
    )  # fmt: skip

    def __init__(
        self, method: bytes, authority: bytes, path: bytes, fields: list[tuple[bytes, bytes]]
    ) -> None:
        self.method = method
        self.authority = authority
        self.path = path
        self.scheme = b"http"
        self.fields = fields
        self.length = -1
        self.upgrade = b""
        self.has_id = False
        self.claims: Mapping[str, Any] = NO_CLAIMS
        self.trace: Context | None = None

    def get(self, name: bytes) -> bytes:
        """The first field of that name; empty where there is none."""
        for each, value in self.fields:
            if each == name:
                return value
        return b""

    def copy(self) -> Request:
        """The same, whose fields can be changed by themselves."""
        made = Request(self.method, self.authority, self.path, list(self.fields))
        made.scheme, made.length, made.upgrade = self.scheme, self.length, self.upgrade
        made.claims, made.trace, made.has_id = self.claims, self.trace, self.has_id
        return made

    @property
    def is_grpc(self) -> bool:
        """Whether it is a call of gRPC."""
        kind = self.get(b"content-type")
        return kind == b"application/grpc" or kind.startswith((b"application/grpc+", b"application/grpc;"))

    def as_fields(self) -> Fields:
        """As HTTP/2 has it."""
        return (
            (b":method", self.method),
            (b":scheme", self.scheme),
            (b":authority", self.authority),
            (b":path", self.path),
            *self.fields,
        )


def read_request(untrusted: Fields, upgrade: bytes, new_id: NewId) -> Request:
    """A request of HTTP/1.1 whose head stands by itself (`http1`); `upgrade` as its frame says.

    Raises:
        Refused: it goes nowhere, and is answered so.
    """
    return complete(parse_request(untrusted, upgrade), new_id)


def parse_request(untrusted: Fields, upgrade: bytes) -> Request:
    """The same, before `complete`. Raises Refused."""
    method, target, fields = untrusted[0][1], untrusted[1][1], untrusted[2:]
    hosts = [value for name, value in fields if name == b"host"]
    if not hosts:
        raise Refused(NO_HOST)
    if len(hosts) > 1:
        raise Refused(BAD_HOST)
    if method == b"CONNECT":
        raise Refused(NO_ROUTE)
    scheme = b""
    if not target.startswith((b"/", b"*")):
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            raise Refused(BAD_PATH)
        scheme, rest = absolute[1].lower(), absolute[3] or b"/"
        if _bare(absolute[2], scheme) != _bare(hosts[0], scheme):
            raise Refused(BAD_HOST)
        target = rest if rest.startswith(b"/") else b"/" + rest
    made = Request(method, hosts[0], target, _passed_on(fields))
    offered = {each.strip(b" \t") for each in upgrade.split(b",")}
    wanted = {each for each in offered if each not in (b"", b"h2c") and not each.startswith(b"tls/")}
    if wanted:
        if wanted != {WEBSOCKET}:
            raise Refused(FORBIDDEN_UPGRADE)
        made.upgrade = WEBSOCKET
    return _checked(made, scheme)


def _bare(authority: bytes, scheme: bytes) -> bytes:
    """In lower case, without the port that goes without saying: some clients say it in one place only."""
    return authority.lower().removesuffix(b":80" if scheme == b"http" else b":443")


def read_stream(untrusted: Fields, new_id: NewId) -> Request:
    """A request of HTTP/2 that is well formed (`http2.validity`). Raises Refused."""
    return complete(parse_stream(untrusted), new_id)


def parse_stream(untrusted: Fields) -> Request:
    """The same, before `complete`: what only says what others have said already need not be parsed again.
    Raises Refused."""
    pseudo: dict[bytes, bytes] = {}
    fields: list[tuple[bytes, bytes]] = []
    crumbs: list[bytes] = []
    for field in untrusted:
        name, value = field
        if name.startswith(b":"):
            pseudo[name] = value
        elif name == b"cookie":
            crumbs.append(value)
        else:
            fields.append(field)
    if not can_stand_in_lines(untrusted[len(pseudo) :]):
        raise Refused(MALFORMED)
    if crumbs:
        fields.append((b"cookie", b"; ".join(crumbs)))  # HTTP/1.1 has one (RFC 9113 section 8.2.3)
    method = pseudo[b":method"]
    if method == b"CONNECT":
        raise Refused(NO_ROUTE)
    if not _METHOD.fullmatch(method) or pseudo[b":scheme"] not in _SCHEMES:
        raise Refused(MALFORMED)
    hosts = [value for name, value in fields if name == b"host"]
    authority = pseudo.get(b":authority") or (hosts[0] if hosts else b"")
    if not authority:
        raise Refused(NO_HOST)
    scheme = pseudo[b":scheme"]
    if hosts and any(_bare(host, scheme) != _bare(authority, scheme) for host in hosts):
        raise Refused(BAD_HOST)
    return _checked(Request(method, authority, pseudo[b":path"], _passed_on(fields)), scheme)


def _passed_on(fields: list[tuple[bytes, bytes]] | Fields) -> list[tuple[bytes, bytes]]:
    """Without what was for this connection (RFC 9110 section 7.6.1), and what only trusted proxies say."""
    nominated: frozenset[bytes] = frozenset()
    trailers = False
    kept: list[tuple[bytes, bytes]] = []
    for field in fields:
        name = field[0]
        if name not in _NOT_PASSED_ON:
            kept.append(field)
        elif name == b"connection":
            nominated |= connection_options(field[1])
        elif name == b"te":
            trailers = trailers or b"trailers" in [each.strip() for each in field[1].lower().split(b",")]
    if nominated:
        if not nominated.isdisjoint(_NEVER_NOMINATED):
            raise Refused(MALFORMED)
        kept = [field for field in kept if field[0] not in nominated]
    if trailers:
        kept.append((b"te", b"trailers"))
    return kept


def complete(parsed: Request, new_id: NewId) -> Request:
    """A request with what differs from one to the next although they say the same: its id."""
    if not parsed.has_id:
        parsed.fields.append((b"x-request-id", new_id()))
    parsed.fields.append(_SOURCE)
    return parsed


def _checked(made: Request, scheme: bytes) -> Request:
    if not _AUTHORITY.fullmatch(made.authority):
        raise Refused(BAD_HOST)
    made.path = _path(made)
    forwarded = b""
    for name, value in made.fields:
        if name == b"content-length":
            if made.length >= 0 or not _DIGITS.fullmatch(value):
                raise Refused(MALFORMED)
            made.length = int(value)
        elif name == b"x-request-id":
            made.has_id = True
        elif name == b"x-forwarded-proto":
            forwarded = value or b"-"
    if not forwarded:
        made.fields.append((b"x-forwarded-proto", b"http"))  # Envoy's for a connection without TLS of its own
    made.scheme = scheme or scheme_of(forwarded)
    return made


def scheme_of(forwarded: bytes) -> bytes:
    """The scheme of a request that names none; `forwarded`: its `x-forwarded-proto`."""
    said = forwarded.lower()
    return said if said in _SCHEMES else b"http"


def _path(made: Request) -> bytes:
    if made.path == b"*" and made.method == b"OPTIONS":
        return made.path
    path = normalize(made.path) if made.path.startswith(b"/") else None
    if path is None:
        raise Refused(BAD_PATH)
    return path
