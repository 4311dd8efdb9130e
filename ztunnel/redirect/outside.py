"""Calls that leave the mesh unproxied, as the kernel remembers and reports them: `struct outside` of
`bpf/lib/reports.h`."""

from __future__ import annotations

import sys
from struct import Struct
from typing import NamedTuple

from ztunnel.model.address import Endpoint
from ztunnel.redirect.layout import pull_ip
from ztunnel.redirect.records import RecordEvent

OUTSIDE = Struct("=QQQQQQ16s16sHHIBBB5x")
_EVENTS = {event.value: event for event in RecordEvent}


class OutsideCall(NamedTuple):
    """A call that leaves the mesh unproxied, as the kernel reports and remembers it.

    Attributes:
        cookie: the calling pod's namespace.
        socket: the calling socket's cookie, as sock_diag shows it.
        since_ns, time_ns: CLOCK_MONOTONIC, of the connect and of this report.
        sent_bytes, received_bytes: payload; received ones may count the peer's FIN unless they are `exact`.
        way: pod and destination, equal in all calls from the one to the other.
        source_ip: packed; zero before the SYN.
        error: errno of a connection that failed; 0: none, or not known unless `exact`.
    """

    cookie: int
    socket: int
    since_ns: int
    time_ns: int
    sent_bytes: int
    received_bytes: int
    way: bytes
    source_ip: bytes
    source_port: int
    error: int
    event: RecordEvent | None
    established: bool
    exact: bool

    @property
    def source(self) -> Endpoint | None:
        """Where it comes from, on the wire; None before the SYN."""
        return Endpoint(pull_ip(self.source_ip), self.source_port) if self.source_port else None

    @property
    def destination(self) -> Endpoint:
        """Where it goes."""
        return Endpoint(pull_ip(self.way[8:24]), int.from_bytes(self.way[24:26], sys.byteorder))


def pull_outside(packed: bytes) -> OutsideCall:
    """struct outside."""
    (cookie, socket, since_ns, time_ns, sent, received, source, _, source_port, _, error, event, established,
     exact) = OUTSIDE.unpack(packed)  # fmt: skip
    return OutsideCall(
        cookie,
        socket,
        since_ns,
        time_ns,
        sent,
        received,
        packed[:8] + packed[64:80] + packed[82:84],  # namespace, destination's address and port
        source,
        source_port,
        error,
        _EVENTS.get(event),
        established != 0,
        exact != 0,
    )
