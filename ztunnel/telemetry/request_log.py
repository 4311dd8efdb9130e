"""The access log of requests: a line for each that ended, in Envoy's default format as Istio sets it.

Source: Istio pilot/pkg/model/telemetry_logging.go (EnvoyTextLogFormat, EnvoyJSONLogFormatIstio); whatever a
client or server says stays on its line and inside its quotes (`line`, CVE-2024-45808).
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Final

from ztunnel.telemetry.line import LONGEST, quote, timestamp_ms

_NOTHING: Final = "-"
_NO_TEXT: Final = '"-"'
_BARE: Final = re.compile(r"[A-Za-z0-9_.:/@%+\[\]{}|;-]+")

Fields = tuple[tuple[bytes, bytes], ...]
"""Fields of HTTP, names in lower case."""

_NO_FIELDS: Final[Fields] = ()


class RequestRecord:
    """One request that ended, or one connection through a waypoint, of which there is no request.

    Empty texts, and a negative `upstream_milliseconds`, are what is not known: `-` in the line. `time_ns` is
    when it began, nanoseconds since the epoch. From `request` on it is what formats of an operator ask for
    (`log_format`): fields, how often it was sent on, the client's identity.
    """

    __slots__ = (
        "attempts", "authority", "details", "downstream_local", "downstream_remote",
        "duration_seconds", "flag", "forwarded_for", "grpc_status", "method", "path", "peer",
        "protocol", "received_bytes", "request", "request_id", "response", "route", "scheme", "sent_bytes",
        "server_name", "status", "termination", "time_ns", "trailers", "upstream_cluster",
        "upstream_failure", "upstream_host", "upstream_local", "upstream_milliseconds",
        "user_agent",
    )  # fmt: skip

    def __init__(self, time_ns: int) -> None:
        """Nothing else is known yet: whoever makes it says what is."""
        self.time_ns = time_ns
        self.method = self.path = self.protocol = self.scheme = ""
        self.status = 0
        self.flag = self.details = self.termination = self.upstream_failure = ""
        self.received_bytes = self.sent_bytes = 0
        self.duration_seconds = 0.0
        self.upstream_milliseconds = -1
        self.forwarded_for = self.user_agent = self.request_id = self.authority = ""
        self.upstream_host = self.upstream_cluster = self.upstream_local = ""
        self.downstream_local = self.downstream_remote = self.server_name = self.route = ""
        self.request: Fields = _NO_FIELDS
        self.response: Fields = _NO_FIELDS
        self.trailers: Fields = _NO_FIELDS
        self.attempts = 0
        self.peer = self.grpc_status = ""


def render_request(record: RequestRecord) -> str:
    """The line, without its end."""
    it = record
    request = _quoted(f"{it.method or _NOTHING} {it.path or _NOTHING} {it.protocol or _NOTHING}")
    upstream_took = it.upstream_milliseconds
    return (
        f"[{start_time(it.time_ns)}] {request} {it.status} {it.flag or _NOTHING} {_bare(it.details)} "
        f"{_bare(it.termination)} {_quoted(it.upstream_failure)} {it.received_bytes} {it.sent_bytes} "
        f"{int(it.duration_seconds * 1000)} {upstream_took if upstream_took >= 0 else _NOTHING} "
        f"{_quoted(it.forwarded_for)} {_quoted(it.user_agent)} {_quoted(it.request_id)} "
        f"{_quoted(it.authority)} {_quoted(it.upstream_host)} {_bare(it.upstream_cluster)} "
        f"{_bare(it.upstream_local)} {_bare(it.downstream_local)} {_bare(it.downstream_remote)} "
        f"{_bare(it.server_name)} {_bare(it.route)}"
    )


def render_request_json(record: RequestRecord) -> str:
    """The same as a JSON object, with Istio's keys; what is not known is null."""
    it = record
    entry = {
        "start_time": start_time(it.time_ns),
        "route_name": it.route or None,
        "method": it.method or None,
        "path": it.path or None,
        "protocol": it.protocol or None,
        "response_code": it.status,
        "response_flags": it.flag or _NOTHING,
        "response_code_details": it.details or None,
        "connection_termination_details": it.termination or None,
        "bytes_received": it.received_bytes,
        "bytes_sent": it.sent_bytes,
        "duration": int(it.duration_seconds * 1000),
        "upstream_service_time": it.upstream_milliseconds if it.upstream_milliseconds >= 0 else None,
        "x_forwarded_for": it.forwarded_for or None,
        "user_agent": it.user_agent or None,
        "request_id": it.request_id or None,
        "authority": it.authority or None,
        "upstream_host": it.upstream_host or None,
        "upstream_cluster": it.upstream_cluster or None,
        "upstream_local_address": it.upstream_local or None,
        "downstream_local_address": it.downstream_local or None,
        "downstream_remote_address": it.downstream_remote or None,
        "requested_server_name": it.server_name or None,
        "upstream_transport_failure_reason": it.upstream_failure or None,
    }
    return json.dumps(entry, separators=(",", ":")).replace("\x7f", "\\u007f")


def start_time(time_ns: int) -> str:
    """Envoy's %START_TIME%, in milliseconds."""
    return timestamp_ms(time_ns)


def _quoted(text: str) -> str:
    return quote(text) if text else _NO_TEXT


@lru_cache(1024)
def _bare(text: str) -> str:
    """As `line.bare`, with the letters that details and clusters have besides. What is shown so is the same
    for many requests."""
    if not text:
        return _NOTHING
    return text if _BARE.fullmatch(text) and len(text) <= LONGEST else quote(text)
