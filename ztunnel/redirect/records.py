"""What the kernel says of direct flows: the records that both ends send (`bpf/lib/reports.h`), and what it
remembers of those that live.

A connection's two ends report separately: a `FlowRecord` says what its own end sent, so a direct flow's `up`
bytes are in the CLIENT record and its `down` bytes in the SERVER record; `flow` is equal in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

from ztunnel.model.address import Endpoint, OriginalDestination, pack16
from ztunnel.redirect.layout import INTENT, TUPLE, IntentKind, pull_ip, push_tuple

RECORD: Final = Struct("=QQQQQ16s16sHH16sHxxIIIBBBx")
_RECORD_HEAD, _RECORD_TAIL = Struct("=QQQQQ"), Struct("=IIIBBBx")
WAY: Final = Struct("=16s16sH16sH")


class RecordEvent(IntEnum):
    """enum record_event. UNANSWERED: a direct flow's SYN has not arrived within a second, and is sent
    again."""

    OPENED = 1
    ENDED = 2
    UNANSWERED = 3
    DENIED = 4


class RecordRole(IntEnum):
    """enum record_role: which end reports."""

    CLIENT = 1
    SERVER = 2


_EVENTS: Final = {event.value: event for event in RecordEvent}
_ROLES: Final = {role.value: role for role in RecordRole}


def push_way(source: Endpoint, destination: Endpoint, asked: Endpoint) -> bytes:
    """What flows have in common that differ in the source's port only."""
    hosts = pack16(source.ip), pack16(destination.ip)
    return WAY.pack(*hosts, destination.port, pack16(asked.ip), asked.port)


class FlowRecord(NamedTuple):
    """One end's report of a direct flow, or a refusal at connect. Each flow makes three of them, and for most
    nobody asks what their addresses are: those are read when they are asked for.

    Attributes:
        flow: the 4-tuple as `push_tuple` gives it.
        way: see `push_way`.
        time_ns: CLOCK_MONOTONIC.
        cookie: the reporting end's namespace.
        socket: the reporting end's socket cookie, as sock_diag shows it.
        sent_bytes: payload that this end sent and the other acknowledged.
        srtt_us, retransmits: this end's smoothed round trip and retransmitted segments.
        policy: number given with the deny verdict.
        established: whether the connection ever was; False at ENDED is a refused or unanswered SYN.
    """

    flow: bytes
    way: bytes
    event: RecordEvent
    role: RecordRole
    established: bool
    time_ns: int
    duration_ns: int
    cookie: int
    socket: int
    sent_bytes: int
    srtt_us: int
    retransmits: int
    policy: int

    @property
    def source(self) -> Endpoint:
        """Where it comes from, on the wire; DENIED has no source."""
        packed, _, port, _ = TUPLE.unpack(self.flow)
        return Endpoint(pull_ip(packed), port)

    @property
    def destination(self) -> Endpoint:
        """Where it goes, on the wire; the endpoint that was judged for DENIED."""
        _, packed, _, port = TUPLE.unpack(self.flow)
        return Endpoint(pull_ip(packed), port)

    @property
    def asked(self) -> OriginalDestination:
        """What the application called: a VIP, or the destination itself."""
        _, _, _, packed, port = WAY.unpack(self.way)
        return OriginalDestination(pull_ip(packed), port)


def pull_record(packed: bytes) -> FlowRecord:
    """struct record."""
    time_ns, cookie, socket, sent, duration_ns = _RECORD_HEAD.unpack_from(packed)
    srtt_us, retransmits, policy, event, role, established = _RECORD_TAIL.unpack_from(packed, 96)
    return FlowRecord(
        packed[40:76],  # both addresses, both ports
        packed[40:72] + packed[74:94],  # both addresses, the destination's port, what was asked for
        _EVENTS[event],
        _ROLES[role],
        established != 0,
        time_ns,
        duration_ns,
        cookie,
        socket,
        sent,
        srtt_us,
        retransmits,
        policy,
    )


@dataclass(frozen=True, slots=True)
class LiveFlow:
    """One end of a direct flow that is live now, as the kernel remembers it."""

    socket: int
    cookie: int
    role: RecordRole
    established: bool
    source: Endpoint
    destination: Endpoint
    asked: OriginalDestination
    since_ns: int

    @property
    def flow(self) -> bytes:
        """The 4-tuple as `push_tuple` gives it."""
        return push_tuple(self.source, self.destination)

    @property
    def way(self) -> bytes:
        """See `push_way`."""
        return push_way(self.source, self.destination, self.asked)


def pull_live_flow(socket: int, packed: bytes) -> LiveFlow | None:
    """struct intent of the socket of this cookie; None where it is no direct flow, or its SYN has not
    left."""
    (asked, asked_port, _, _, netns, _, _, since_ns, source, destination, source_port, destination_port,
     kind, established, _) = INTENT.unpack(packed)  # fmt: skip
    if kind not in (IntentKind.DIRECT, IntentKind.SERVED) or not source_port:
        return None
    return LiveFlow(
        socket=socket,
        cookie=netns,
        role=RecordRole.SERVER if kind == IntentKind.SERVED else RecordRole.CLIENT,
        established=bool(established),
        source=Endpoint(pull_ip(source), source_port),
        destination=Endpoint(pull_ip(destination), destination_port),
        asked=OriginalDestination(pull_ip(asked), asked_port),
        since_ns=since_ns,
    )
