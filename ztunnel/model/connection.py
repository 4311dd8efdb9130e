"""One connection, as policies and telemetry see it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ztunnel.model.address import Endpoint
from ztunnel.model.identity import SpiffeId


class Direction(StrEnum):
    """Which side of the connection we report from."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class Security(StrEnum):
    """`connection_security_policy` of the metrics: `mutual_tls` only where TLS really was on the wire."""

    UNKNOWN = "unknown"
    MUTUAL_TLS = "mutual_tls"


@dataclass(frozen=True, slots=True)
class Connection:
    """What an authorization policy may look at. `identity` is None unless a certificate (or, on one node, the
    kernel) proved it: an address never stands in for it."""

    source: Endpoint
    destination: Endpoint
    identity: SpiffeId | None
