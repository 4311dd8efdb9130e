"""Spans as Zipkin has them in JSON (openzipkin/zipkin-api zipkin2-api.yaml, POST /api/v2/spans)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from ztunnel.telemetry.span import CLIENT, LONGEST, SERVER, Span

_KINDS = {SERVER: "SERVER", CLIENT: "CLIENT"}
_PEER = "peer.address"
_NO_HALF = "0" * 16
"""Of an id of 64 bits, which has 16 digits here."""


def render_zipkin(
    spans: Iterable[Span], service: str, addresses: Iterable[str] = (), longest: int = LONGEST
) -> bytes:
    """A list of spans, of a service of that name at these addresses; texts are cut to `longest`."""
    whose = {"serviceName": service, **_addresses(addresses)}
    return json.dumps([_entry(each, whose, longest) for each in spans], separators=(",", ":")).encode()


def _entry(span: Span, whose: dict[str, str], longest: int) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "traceId": span.trace_id.removeprefix(_NO_HALF),
        "id": span.span_id,
        "name": span.name[:longest],
        "timestamp": span.start_ns // 1000,
        "duration": max(1, (span.end_ns - span.start_ns) // 1000),
        "localEndpoint": whose,
        "tags": {name: str(value)[:longest] for name, value in span.attributes if value != ""},
    }
    if span.kind in _KINDS:
        entry["kind"] = _KINDS[span.kind]
    if span.parent_id:
        entry["parentId"] = span.parent_id
    if span.is_error:
        entry["tags"]["error"] = "true"
    peer = _addresses(str(value) for name, value in span.attributes if name == _PEER)
    if peer:
        entry["remoteEndpoint"] = peer
    return entry


def _addresses(texts: Iterable[str]) -> dict[str, str]:
    """`ipv4` and `ipv6`, the first of each."""
    found: dict[str, str] = {}
    for text in texts:
        try:
            found.setdefault(f"ipv{ip_address(text).version}", text)
        except ValueError:
            continue
    return found
