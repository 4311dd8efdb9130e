"""Header and trailer fields of a call, both ways (gRPC's PROTOCOL-HTTP2.md).

Metadata is a mapping of lower-case names to values; of a name that came several times the values stand in
one, with commas, as HTTP has it. Values of names in `-bin` stay as they are on the wire, base64.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ztunnel.rpc import timeout
from ztunnel.rpc.status import Code, RpcError, decode_message, encode_message, from_http, parse_code

Fields = list[tuple[str, str]]
RawFields = Iterable[tuple[bytes, bytes]]

_CONTENT_TYPE: Final = "application/grpc"
_NAME = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")
_OWN: Final = frozenset(
    ("te", "content-type", "user-agent", "connection", "host", "transfer-encoding", "content-length")
)
"""Names that are the protocol's; with `:...` and `grpc-...` they are no metadata."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked for."""

    path: str
    metadata: Mapping[str, str]
    timeout_seconds: float | None


class Refused(Exception):
    """A request that cannot be taken as a call. `fields` is the whole answer."""

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        self.fields = fields


def request(
    path: str, authority: str, metadata: Mapping[str, str], agent: str, timeout_seconds: float | None
) -> Fields:
    """The fields that open a call.

    Raises:
        RpcError: INTERNAL, for metadata that HTTP cannot carry; the value is not in its message.
    """
    fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", _CONTENT_TYPE),
        ("user-agent", agent),
    ]
    if timeout_seconds is not None:
        fields.append(("grpc-timeout", timeout.render(timeout_seconds)))
    for name, value in metadata.items():
        if not _NAME.fullmatch(name) or _reserved(name):
            raise RpcError(Code.INTERNAL, f"{name[:80]!r} cannot be the name of metadata")
        if not _VALUE.fullmatch(value):
            raise RpcError(Code.INTERNAL, f"the value of the metadata {name!r} is not printable ASCII")
        fields.append((name, value.strip(" ")))
    return fields


def parse_request(untrusted: RawFields) -> Request:
    """The call that these fields open.

    Raises:
        Refused: it is none.
    """
    got = _collect(untrusted)
    if got.get(":method") != "POST":
        raise Refused([(":status", "405"), ("allow", "POST")])
    content_type = got.get("content-type", "")
    if not _is_grpc(content_type):
        raise Refused([(":status", "415"), ("accept", _CONTENT_TYPE)])
    seconds = None
    if "grpc-timeout" in got:
        seconds = timeout.parse(got["grpc-timeout"])
        if seconds is None:
            raise Refused(trailers_only(RpcError(Code.INTERNAL, "grpc-timeout is not a timeout")))
    return Request(got.get(":path", ""), _metadata(got), seconds)


def response() -> Fields:
    """The fields that begin an answer."""
    return [(":status", "200"), ("content-type", _CONTENT_TYPE)]


def trailers(error: RpcError | None) -> Fields:
    """The fields that end an answer."""
    if error is None:
        return [("grpc-status", "0")]
    return [("grpc-status", str(int(error.code))), ("grpc-message", encode_message(error.message))]


def trailers_only(error: RpcError) -> Fields:
    """The whole answer, where there is nothing before its end."""
    return [*response(), *trailers(error)]


def parse_response(untrusted: RawFields, ended: bool) -> tuple[Mapping[str, str], RpcError | None]:
    """What an answer begins with: metadata, and how the call ended if it has.

    Args:
        ended: whether these fields are all that comes.

    Raises:
        RpcError: the answer is none of gRPC; the code is that of its HTTP status.
    """
    got = _collect(untrusted)
    if ended and "grpc-status" in got:
        return _metadata(got), _status(got)
    status = got.get(":status", "")
    if status != "200":
        number = int(status) if status.isascii() and status.isdigit() else 0
        raise RpcError(from_http(number), f"the server answered with HTTP status {status[:20]!r}")
    if not _is_grpc(got.get("content-type", "")):
        kind = got.get("content-type", "")[:80]
        raise RpcError(Code.UNKNOWN, f"the server answered with content type {kind!r}, which is not gRPC's")
    if ended:
        raise RpcError(Code.UNKNOWN, "the server ended the call without a status")
    if got.get("grpc-encoding", "identity") != "identity":
        raise RpcError(Code.UNIMPLEMENTED, "the server compresses its messages, which nobody asked for")
    return _metadata(got), None


def parse_trailers(untrusted: RawFields) -> RpcError | None:
    """How a call ended; None is OK."""
    return _status(_collect(untrusted))


def _status(got: Mapping[str, str]) -> RpcError | None:
    if "grpc-status" not in got:
        return RpcError(Code.UNKNOWN, "the server ended the call without a status")
    code = parse_code(got["grpc-status"])
    return None if code is Code.OK else RpcError(code, decode_message(got.get("grpc-message", "")))


def _collect(untrusted: RawFields) -> dict[str, str]:
    """h2 has checked names and values by RFC 9113 section 8.2.1; bytes beyond ASCII are taken as Latin-1."""
    got: dict[str, str] = {}
    for raw_name, raw_value in untrusted:
        name, value = bytes(raw_name).decode("latin-1"), bytes(raw_value).decode("latin-1")
        got[name] = f"{got[name]},{value}" if name in got else value
    return got


def _metadata(got: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in got.items() if not _reserved(name)}


def _reserved(name: str) -> bool:
    return name.startswith((":", "grpc-")) or name in _OWN


def _is_grpc(content_type: str) -> bool:
    kind, _, _ = content_type.partition(";")
    return kind == _CONTENT_TYPE or kind.startswith(_CONTENT_TYPE + "+")
