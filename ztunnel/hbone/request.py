"""The headers of HBONE's CONNECT and its answer (Istio's ztunnel, src/proxy/outbound.rs and inbound.rs).

`:authority` says where to; the rest says who asks, and is never proof of anything: it is for logs and
metrics. So what is wrong in it is left out, and only a wrong request line refuses the tunnel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from ztunnel.errors import PeerError
from ztunnel.http2.fields import SHORT, SHORT_BYTES, Fields, push_fields, push_name
from ztunnel.model.address import Endpoint, IPAddress, parse_endpoint
from ztunnel.model.workload import Workload, WorkloadKind

BAD_REQUEST: Final = 400
_CONNECT: Final = (b":method", b"CONNECT")
_MAX_AUTHORITY_BYTES: Final = 512
_MAX_HINT_BYTES: Final = 4096
_TRACEPARENT_BYTES: Final = 55
_PORT_DIGITS: Final = 5
_LAST_PORT: Final = 65535
_DIGITS: Final = 48  # of a trace and a span
_BITS: Final = 16 * 4 * _DIGITS
_ABOVE: Final = 1 << _BITS
_FOR: Final = b'for="'
_QUOTE: Final = 0x22
_COLON: Final = 0x3A
_ZERO: Final = 0x30
_NINE: Final = 0x39
_MOST_WORTH: Final = 10000  # of a digit, where there are _PORT_DIGITS
_COMMA: Final = 0x2C
_SEMICOLON: Final = 0x3B
_HEX: Final = frozenset("0123456789abcdef-")
_FORWARDED: Final = push_name(b"forwarded")
_TRACEPARENT: Final = push_name(b"traceparent")
_KINDS: Final = {f"k8s.{kind.value}.name": kind for kind in WorkloadKind}


class Random(Protocol):
    """A source of random bits, such as random.Random."""

    def getrandbits(self, k: int, /) -> int: ...


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """A CONNECT. `authority` is `ip:port` or `hostname:port`; empty strings and None stand for absent
    headers.

    `source` and `host` are what `forwarded` says: the address that the application called from, and the
    service that it called.
    """

    authority: str
    baggage: str = ""
    source: Endpoint | None = None
    host: str = ""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Baggage:
    """What one side says of its workload."""

    cluster: str = ""
    namespace: str = ""
    kind: WorkloadKind | None = None
    workload: str = ""
    service: str = ""
    version: str = ""
    region: str = ""
    zone: str = ""


class TraceContexts:
    """W3C trace contexts, one for each connection, not sampled: they only tie the logs of both ends together.
    The digits of some are drawn at once: to draw and spell those of one takes four times as long."""

    __slots__ = ("_at", "_digits", "_rng")

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._digits = ""
        self._at = 0

    def new(self) -> str:
        """The next one."""
        at = self._at
        if at >= len(self._digits):
            # The bit above all others keeps the zeros of the first digits.
            self._digits = hex(_ABOVE | self._rng.getrandbits(_BITS))[3:]
            at = 0
        self._at = at + _DIGITS
        return f"00-{self._digits[at : at + 32]}-{self._digits[at + 32 : at + _DIGITS]}-00"


def render_baggage(workload: Workload) -> str:
    """The `baggage` of a workload: ztunnel's keys in ztunnel's order, absent ones left out. Worth keeping:
    it changes with the workload only."""
    items = (
        ("k8s.cluster.name", workload.cluster),
        ("k8s.namespace.name", workload.namespace),
        (f"k8s.{workload.kind.value}.name", workload.workload_name),
        ("service.name", workload.canonical_name),
        ("service.version", workload.canonical_revision),
        ("cloud.region", workload.locality.region),
        ("cloud.availability_zone", workload.locality.zone),
    )
    return ",".join(f"{key}={value}" for key, value in items if value)


def parse_baggage(untrusted: str) -> Baggage:
    """Read a `baggage`; unknown keys and properties behind `;` are passed over."""
    found: dict[str, str] = {}
    for item in untrusted[:_MAX_HINT_BYTES].split(","):
        key, separator, value = item.partition("=")
        if separator:
            found.setdefault(key.strip(), value.partition(";")[0].strip())
    owner = next((key for key in _KINDS if key in found), "")
    return Baggage(
        cluster=found.get("k8s.cluster.name", ""),
        namespace=found.get("k8s.namespace.name", ""),
        kind=_KINDS.get(owner),
        workload=found.get(owner, ""),
        service=found.get("service.name", ""),
        version=found.get("service.version", ""),
        region=found.get("cloud.region", ""),
        zone=found.get("cloud.availability_zone", ""),
    )


class RequestHead:
    """A plain CONNECT (no `:scheme`, no `:path`), with what all calls that go one way have in common encoded
    once."""

    __slots__ = ("_common", "_for", "_host")

    def __init__(self, authority: str, baggage: str, source: IPAddress, host: str = "") -> None:
        """`source` is the address that applications call from, `host` the service that they call, empty where
        it is none."""
        fields = [(b":method", b"CONNECT"), (b":authority", authority.encode())]
        if baggage:
            fields.append((b"baggage", baggage.encode()))
        self._common = push_fields(fields)
        self._for = f'for="{Endpoint(source, 0)}'.removesuffix("0")
        self._host = f'";host={host}' if host else '"'

    def render(self, port: int, traceparent: str) -> bytes:
        """The header block of one call, from `port` of the source."""
        forwarded = f"{self._for}{port}{self._host}".encode()
        context = traceparent.encode()
        if len(forwarded) < SHORT_BYTES and len(context) < SHORT_BYTES:
            named = [_FORWARDED, SHORT[len(forwarded)], forwarded, _TRACEPARENT, SHORT[len(context)], context]
            return self._common + b"".join(named)
        return self._common + push_fields(((b"forwarded", forwarded), (b"traceparent", context)))


Outline = tuple[bytes, bytes]
"""What of a CONNECT decides what becomes of it, unread: its authority, and `forwarded` without its `for`."""


def outline_of(untrusted: Fields) -> Outline | None:
    """The outline of a CONNECT of the usual shape; None for any other. Requests of one outline are parsed
    into the same authority and host."""
    if len(untrusted) < 2 or untrusted[0] != _CONNECT or untrusted[1][0] != b":authority":
        return None
    forwarded: bytes | None = None
    for name, value in untrusted[2:]:
        if name.startswith(b":"):
            return None
        if name == b"forwarded" and forwarded is None:
            # A number and not bytes: to look for these an exception is raised within, and taken back.
            plain = value.startswith(b"for=") and _COMMA not in value
            forwarded = value.partition(b";")[2] if plain else value
    return untrusted[1][1], forwarded or b""


def context_of(untrusted: Fields) -> str:
    """The trace context that a CONNECT says, if it has one of the length and letters of one; else empty."""
    for name, value in untrusted:
        if name == b"traceparent":
            text = value.decode("ascii", "replace")
            return text if len(text) == _TRACEPARENT_BYTES and _HEX.issuperset(text) else ""
    return ""


def calling_port(untrusted: Fields) -> int:
    """The port that the application called from, as `for` of the first `forwarded` says; 0 for none. Asked
    of every request, and never proof of anything."""
    for name, value in untrusted:
        if name == b"forwarded":
            port = _plain_port(value)
            if port:
                return port
            if not value.startswith(b"for="):
                return 0
            if _COMMA in value:
                value = value.partition(b",")[0]
            if _SEMICOLON in value:
                value = value.partition(b";")[0]
            at = value.rfind(b":") + 1
            digits = value[at:].strip(b'"')
            port = int(digits) if digits.isdigit() and len(digits) <= _PORT_DIGITS else 0
            return port if port <= _LAST_PORT else 0
    return 0


def _plain_port(untrusted: bytes) -> int:
    """The port at the end of `for="...:port"` where nothing else stands in it, as we write it; 0 for anything
    else. Octet by octet, which takes a fifth of the time that methods of bytes do."""
    if len(untrusted) < len(_FOR) or untrusted[-1] != _QUOTE or not untrusted.startswith(_FOR):
        return 0
    if _COMMA in untrusted or _SEMICOLON in untrusted:
        return 0
    at = len(untrusted) - 2
    port, worth = 0, 1
    while worth <= _MOST_WORTH and _ZERO <= untrusted[at] <= _NINE:
        port += (untrusted[at] - _ZERO) * worth
        worth *= 10
        at -= 1
    return port if untrusted[at] == _COLON and port <= _LAST_PORT else 0


def parse_request(untrusted: Fields) -> ConnectRequest:
    """Read the header list of a CONNECT.

    Raises:
        PeerError: not a plain CONNECT with one authority (RFC 9113 section 8.5); `reply` is 400.
    """
    pseudo: dict[bytes, bytes] = {}
    hints: dict[bytes, bytes] = {}
    for name, value in untrusted:
        if not name.startswith(b":"):
            hints.setdefault(name, value)
        elif name in pseudo or hints:
            raise PeerError("pseudo-headers twice, or behind others", BAD_REQUEST)
        else:
            pseudo[name] = value
    if pseudo.keys() != {b":method", b":authority"} or pseudo[b":method"] != b"CONNECT":
        raise PeerError("not a plain CONNECT", BAD_REQUEST)
    source, host = _parse_forwarded(_hint(hints, b"forwarded"))
    traceparent = _hint(hints, b"traceparent")
    if len(traceparent) != _TRACEPARENT_BYTES or not _HEX.issuperset(traceparent):
        traceparent = ""
    return ConnectRequest(
        _parse_authority(pseudo[b":authority"]), _hint(hints, b"baggage"), source, host, traceparent
    )


def _parse_authority(untrusted: bytes) -> str:
    authority = untrusted.decode("ascii", "replace")
    plain = authority.isascii() and authority.isprintable() and "@" not in authority
    if not plain or not 0 < len(untrusted) <= _MAX_AUTHORITY_BYTES:
        raise PeerError("not an authority", BAD_REQUEST)
    return authority


def _hint(hints: dict[bytes, bytes], name: bytes) -> str:
    """A header that is only a hint: empty where it is absent, too long, or not plain text."""
    value = hints.get(name, b"")
    text = value.decode("ascii", "replace")
    return text if len(value) <= _MAX_HINT_BYTES and text.isascii() and text.isprintable() else ""


def _parse_forwarded(untrusted: str) -> tuple[Endpoint | None, str]:
    """`for` and `host` of the first element of a Forwarded header (RFC 7239 section 4)."""
    source, host = None, ""
    for pair in untrusted.partition(",")[0].split(";"):
        key, _, value = pair.strip().partition("=")
        value = value.strip('"')
        if key.lower() == "host":
            host = value
        elif key.lower() == "for":
            try:
                source = parse_endpoint(value)
            except PeerError:
                source = None
    return source, host


def render_response(status: int, baggage: str = "") -> bytes:
    """The header block of an answer; `baggage` is the local workload's."""
    fields = [(b":status", b"%d" % status)]
    if baggage:
        fields.append((b"baggage", baggage.encode()))
    return push_fields(fields)


def parse_response(untrusted: Fields) -> Baggage:
    """What the answer says of the workload at the other end; its status has been looked at already."""
    return parse_baggage(_hint(dict(untrusted), b"baggage"))
