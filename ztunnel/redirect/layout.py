"""The structs of `bpf/lib/types.h` and `reports.h` in Python: the bytes of every key and value, both ways.

Each struct that the kernel and the proxy share has one `struct.Struct` here, named as in C. Addresses are 16
bytes (IPv4 is v4-mapped), ports host order, padding explicit. A connection's two ends report separately: a
`FlowRecord` says what its own end sent, so a direct flow's `up` bytes are in the CLIENT record and its `down`
bytes in the SERVER record; `flow` is equal in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from functools import lru_cache
from ipaddress import IPv6Address
from struct import Struct
from typing import NamedTuple

from ztunnel.model.address import Endpoint, IPAddress, OriginalDestination, canonical, pack16

NUMBER = Struct("=Q")
SMALL = Struct("=I")
ADDR = Struct("=16s")
ENDPOINT = Struct("=16sHxx")
TUPLE = Struct("=16s16sHH")
POD = Struct("=16s16sIxxxx")
INTENT = Struct("=16sHxx16sHxxQQQQ16s16sHHBBxx")
CALLER = Struct("=Q16sHHxxxx")
LISTENER = Struct("=16sI")
DESTINATION = Struct("=16sHxx16sHxxQ")
ASKED = Struct("=16sHxx16sHxx")
ASKED_BYTES = ASKED.size
"""Of `DESTINATION`: the rest is the kernel's own."""
ADMISSION = Struct("=QQIxxxx")
QUESTION = Struct("=Q16sHxxxxxx")
VERDICT = Struct("=QQQII16sHxxxxxx")
VIP = Struct("=III")
AFFINITY = Struct("=16sHxxIQ")
SLOT = Struct("=II")
NODE_CLIENTS = Struct("=IIQ")
RECORD = Struct("=QQQQQ16s16sHH16sHxxIIIBBBx")
_RECORD_HEAD, _RECORD_TAIL = Struct("=QQQQQ"), Struct("=IIIBBBx")
WAY = Struct("=16s16sH16sH")

_NO_ADDRESS = bytes(16)


class IntentKind(IntEnum):
    """enum intent_kind."""

    CAPTURED = 1
    DIRECT = 2
    SERVED = 3


class AdmissionKind(IntEnum):
    """enum admission_kind."""

    BY_PROXY = 1
    BY_VERDICT = 2
    BY_NODE = 3
    BY_SELF = 4


class ListenerKind(IntEnum):
    """enum listener_kind."""

    INBOUND = 1
    OUTBOUND = 2


class VerdictKind(IntEnum):
    """enum verdict_kind."""

    GO_DIRECT = 1
    DENY = 2


class NodeRule(IntEnum):
    """enum node_rule."""

    SOME_CGROUPS = 1
    ALL_OUTSIDE = 2


class PodFlag(IntFlag):
    """enum pod_flags."""

    NONE = 0
    REFUSED = 1
    FORWARDS = 2
    LEAVING = 4


class RecordEvent(IntEnum):
    """enum record_event. UNANSWERED: a direct flow's SYN got no answer for a second, and is sent again."""

    OPENED = 1
    ENDED = 2
    UNANSWERED = 3
    DENIED = 4


class RecordRole(IntEnum):
    """enum record_role: which end reports."""

    CLIENT = 1
    SERVER = 2


_EVENTS = {event.value: event for event in RecordEvent}
_ROLES = {role.value: role for role in RecordRole}


class Outcome(IntEnum):
    """enum outcome: why a hook returned. outcomes.h says what each means."""

    CONNECT_STRANGER = 0
    CONNECT_OWN = 1
    CONNECT_NOT_TCP = 2
    CONNECT_LOOPBACK = 3
    CONNECT_OWN_ADDRESS = 4
    CONNECT_CAPTURED = 5
    CONNECT_DIRECT = 6
    CONNECT_DENIED = 7
    CONNECT_NO_IPV4 = 8
    CONNECT_NO_IPV6 = 9
    CONNECT_NOT_REMEMBERED = 10
    LEASE_STALE = 11
    VERDICT_STALE = 12
    VIP_PICKED = 13
    VIP_NO_SLOT = 14
    CONNECT_OUTSIDE = 15
    OUTSIDE_NOT_STORED = 16
    OUTSIDE_LOST = 17
    VIP_KEPT = 18
    VIP_AFFINITY_STALE = 19
    CALLER_MOVED = 20
    CALLER_NOT_MOVED = 21
    ADMITTED_DIRECT = 22
    ADMITTED_NODE = 23
    NODE_NOT_LISTED = 24
    ADMISSION_NOT_STORED = 25
    INTENT_MISMATCH = 26
    SERVED_NOT_STORED = 27
    RECORD_LOST = 28
    ADMITTED_PROXY = 29
    ADMITTED_SELF = 30
    INBOUND_NOT_TCP = 40
    INBOUND_LOOPBACK = 41
    INBOUND_OWN = 42
    INBOUND_HBONE = 43
    INBOUND_ADMITTED = 44
    INBOUND_STALE = 45
    INBOUND_CAPTURED = 46
    INBOUND_NO_LISTENER = 47
    INBOUND_NOT_ASSIGNED = 48
    INBOUND_DNS = 49
    OUTBOUND_ASSIGNED = 54
    OUTBOUND_STALE = 55
    CALL_HELD = 57
    CALL_NOT_HELD = 58
    FORWARD_STRANGER = 70
    FORWARD_LEFT = 71
    FORWARD_INNER = 72
    FORWARD_NOT_TCP = 73
    FORWARD_UNREADABLE = 74
    FORWARD_PENDING = 75
    FORWARD_ADMITTED = 76
    FORWARD_ASKED = 77
    FORWARD_REFUSED = 78
    FORWARD_OLDER = 79
    FORWARD_NOT_TOLD = 80
    CONNECT_PENDING = 81
    INBOUND_PENDING = 82
    INBOUND_LAPSED = 83
    INBOUND_LEFT = 84


@lru_cache(4096)
def pull_ip(packed: bytes) -> IPAddress:
    """An address from its 16 bytes; remembered, because records name the same few again and again."""
    return canonical(IPv6Address(packed))


def _pull_optional(packed: bytes) -> IPAddress | None:
    return None if packed == _NO_ADDRESS else pull_ip(packed)


def push_endpoint(endpoint: Endpoint) -> bytes:
    """struct endpoint."""
    return ENDPOINT.pack(pack16(endpoint.ip), endpoint.port)


def push_tuple(source: Endpoint, destination: Endpoint) -> bytes:
    """struct tuple."""
    return TUPLE.pack(pack16(source.ip), pack16(destination.ip), source.port, destination.port)


def push_way(source: Endpoint, destination: Endpoint, asked: Endpoint) -> bytes:
    """What flows have in common that differ in the source's port only."""
    hosts = pack16(source.ip), pack16(destination.ip)
    return WAY.pack(*hosts, destination.port, pack16(asked.ip), asked.port)


def push_pod(ipv4: IPAddress | None, ipv6: IPAddress | None, flags: PodFlag = PodFlag.NONE) -> bytes:
    """struct pod."""
    return POD.pack(*(pack16(ip) if ip else _NO_ADDRESS for ip in (ipv4, ipv6)), flags)


def pull_pod(packed: bytes) -> tuple[IPAddress | None, IPAddress | None, PodFlag]:
    """The inverse of `push_pod`."""
    ipv4, ipv6, flags = POD.unpack(packed)
    return _pull_optional(ipv4), _pull_optional(ipv6), PodFlag(flags)


def push_caller(cookie: int, peer: Endpoint, capture_port: int) -> bytes:
    """struct caller: the peer that the proxy accepted at this port in the namespace of this cookie."""
    return CALLER.pack(cookie, pack16(peer.ip), peer.port, capture_port)


def push_listener(ip: IPAddress, kind: ListenerKind) -> bytes:
    """struct listener."""
    return LISTENER.pack(pack16(ip), kind)


@dataclass(frozen=True, slots=True)
class Recalled:
    """What the application asked for, and the endpoint that the kernel picked of it if it was a VIP with
    slots: the proxy honours that pick, so that shares over many connections stay the balancer's."""

    destination: OriginalDestination
    picked: Endpoint | None


def pull_destination(packed: bytes) -> Recalled:
    """The first `ASKED_BYTES` of struct destination."""
    asked, port, picked, picked_port = ASKED.unpack(packed)
    hint = Endpoint(pull_ip(picked), picked_port) if picked_port else None
    return Recalled(OriginalDestination(pull_ip(asked), port), hint)


@dataclass(frozen=True, slots=True)
class Direct:
    """Calls from the source go straight to the destination, a pod of this node with this cookie. Both
    generations are those from before the judgement: what changes meanwhile voids the verdict before it is
        stored."""

    destination_cookie: int
    source_generation: int
    destination_generation: int


@dataclass(frozen=True, slots=True)
class Deny:
    """Calls are refused at connect; `policy` is a number that comes back in the record. A destination that is
    no pod of this node has cookie and generation 0."""

    policy: int
    source_generation: int
    destination_cookie: int = 0
    destination_generation: int = 0


def push_question(source_cookie: int, destination: Endpoint) -> bytes:
    """struct question."""
    return QUESTION.pack(source_cookie, pack16(destination.ip), destination.port)


def push_verdict(verdict: Direct | Deny, destination: Endpoint) -> bytes:
    """struct verdict on `destination`."""
    kind, policy = (
        (VerdictKind.DENY, verdict.policy) if isinstance(verdict, Deny) else (VerdictKind.GO_DIRECT, 0)
    )
    generations = (verdict.source_generation, verdict.destination_generation)
    return VERDICT.pack(
        verdict.destination_cookie, *generations, kind, policy, pack16(destination.ip), destination.port
    )


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
     kind, established) = INTENT.unpack(packed)  # fmt: skip
    if kind == IntentKind.CAPTURED or not source_port:
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
