"""Replies of our own: status, response flag, details and body, as Envoy gives them (its documentation:
response_code_details, access log usage)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from ztunnel.http1.head import Fields

NO_FLAG = "-"


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply. `status` 0: there is nobody to reply to; `close`: the client's connection ends with it;
    `fields`: headers beyond the usual; `payload`: a body that is no text; `grpc_status`: for a client of
    gRPC, where it is not the one that the status stands for."""

    status: int
    flag: str
    details: str
    body: str = ""
    close: bool = False
    fields: Fields = ()
    payload: bytes = b""
    grpc_status: int | None = None

    def because(self, reason: str) -> Reply:
        """The same with a reason in its body and details, where it has a place for it."""
        return replace(
            self,
            details=self.details.replace("{reason}", _token(reason)),
            body=self.body.replace("{reason}", reason),
        )


_RESET = "upstream connect error or disconnect/reset before headers. reset reason: "

NO_ROUTE: Final = Reply(404, "NR", "route_not_found")
NO_CLUSTER: Final = Reply(503, "NC", "cluster_not_found")
BROKEN_ROUTES: Final = Reply(503, "NC", "route_not_compiled")
_DEADLINE_EXCEEDED: Final = 4
"""Of gRPC; what 504 stands for is UNAVAILABLE, and a client would try again (envoyproxy/envoy#44479)."""
TIMEOUT: Final = Reply(
    504, "UT", "upstream_response_timeout", "upstream request timeout", grpc_status=_DEADLINE_EXCEEDED
)
TRY_TIMEOUT: Final = Reply(
    504, "UT", "upstream_per_try_timeout", "upstream request timeout", grpc_status=_DEADLINE_EXCEEDED
)
FAULT: Final = Reply(503, "FI", "fault_filter_abort", "fault filter abort")
DIRECT: Final = Reply(200, NO_FLAG, "direct_response")
PREFLIGHT: Final = Reply(200, NO_FLAG, "cors_response")
BAD_REWRITE: Final = Reply(500, NO_FLAG, "path_rewrite_failed")
NO_HEALTHY_UPSTREAM: Final = Reply(503, "UH", "no_healthy_upstream", "no healthy upstream")
CONNECT_FAILED: Final = Reply(
    503,
    "UF",
    "upstream_reset_before_response_started{connection_failure|{reason}}",
    _RESET + "remote connection failure, transport failure reason: {reason}",
)
TERMINATED: Final = Reply(
    503,
    "UC",
    "upstream_reset_before_response_started{connection_termination}",
    _RESET + "connection termination",
)
REMOTE_RESET: Final = Reply(
    503, "UR", "upstream_reset_before_response_started{remote_reset}", _RESET + "remote reset"
)
OVERFLOW: Final = Reply(503, "UO", "upstream_reset_before_response_started{overflow}", _RESET + "overflow")
UPSTREAM_PROTOCOL_ERROR: Final = Reply(
    502, "UPE", "upstream_reset_before_response_started{protocol_error}", _RESET + "protocol error"
)
CLIENT_GONE: Final = Reply(0, "DC", "downstream_remote_disconnect")
IDLE: Final = Reply(408, "SI", "stream_idle_timeout", "stream timeout", close=True)
SLOW_HEAD: Final = Reply(408, NO_FLAG, "request_header_timeout", close=True)
PROTOCOL_ERROR: Final = Reply(400, "DPE", "http1.codec_error", "Bad Request", close=True)
HEADERS_TOO_LARGE: Final = Reply(
    431, "DPE", "http1.headers_too_large", "Request Header Fields Too Large", close=True
)
TOO_OLD: Final = Reply(426, "DPE", "low_version", "Upgrade Required", close=True)
BAD_HOST: Final = Reply(400, NO_FLAG, "invalid_authority")
NO_HOST: Final = Reply(400, NO_FLAG, "missing_host_header")
BAD_PATH: Final = Reply(400, NO_FLAG, "path_normalization_failed")
FORBIDDEN_UPGRADE: Final = Reply(403, NO_FLAG, "upgrade_failed")
FIELDS_TOO_LARGE: Final = Reply(431, "DPE", "http2.too_many_headers", "Request Header Fields Too Large")
MALFORMED: Final = Reply(400, "DPE", "http2.invalid_header_field")

_OF_STATUS: Final = {431: HEADERS_TOO_LARGE, 426: TOO_OLD}
_GRPC: Final = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
_GRPC_UNKNOWN: Final = 2
_OF_GRPC: Final = frozenset((b"content-type", b"grpc-status", b"grpc-message"))
_NO_BODY: Final = frozenset((204, 304))
"""Which have none, nor a length of one (RFC 9110 section 8.6)."""


class Refused(Exception):
    """A request is answered here; it goes nowhere."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.details)
        self.reply = reply


def of_codec(status: int) -> Reply:
    """What a reader of HTTP/1 refuses with that status."""
    return _OF_STATUS.get(status) or replace(PROTOCOL_ERROR, status=status or 400)


def render(reply: Reply, grpc: bool) -> tuple[Fields, bytes]:
    """The response. To a client of gRPC it is a 200 that says it in `grpc-status` (Envoy's
    Utility::sendLocalReply, http-grpc-status-mapping.md of gRPC)."""
    if grpc:
        code = reply.grpc_status
        if code is None:
            code = _GRPC.get(reply.status, _GRPC_UNKNOWN)
        fields = [
            (b":status", b"200"),
            (b"content-type", b"application/grpc"),
            (b"grpc-status", b"%d" % code),
        ]
        if reply.body:
            fields.append((b"grpc-message", _percent(reply.body)))
        own = (field for field in reply.fields if field[0] not in _OF_GRPC)
        return (*fields, *own), b""
    body = reply.payload or reply.body.encode()
    fields = [(b":status", b"%d" % reply.status)]
    if reply.status in _NO_BODY:
        body = b""
    else:
        fields.append((b"content-length", b"%d" % len(body)))
    if body and not any(name == b"content-type" for name, _ in reply.fields):
        fields.append((b"content-type", b"text/plain"))
    if reply.flag == "UO":
        fields.append((b"x-envoy-overloaded", b"true"))
    fields.append((b"server", b"istio-envoy"))
    return (*fields, *reply.fields), body


def _percent(text: str) -> bytes:
    """`grpc-message` (gRPC over HTTP/2, Responses): printable ASCII as it is, all else in percent."""
    return b"".join(
        bytes((each,)) if 32 <= each < 127 and each != 37 else b"%%%02X" % each for each in text.encode()
    )


def _token(text: str) -> str:
    """Details hold no blanks (Envoy's StringUtil::replaceAllEmptySpace)."""
    return "_".join(text.split())
