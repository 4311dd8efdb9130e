"""The structs of `bpf/lib/types.h` in Python: the bytes of every key and value, both ways. `records.py` reads
those of `reports.h`.

Each struct that the kernel and the proxy share has one `struct.Struct` here, named as in C. Addresses are 16
bytes (IPv4 is v4-mapped), ports host order, padding explicit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from functools import lru_cache
from ipaddress import IPv6Address
from struct import Struct
from typing import Final

from ztunnel.model.address import Endpoint, IPAddress, OriginalDestination, canonical, ip_text, pack16

NUMBER: Final = Struct("=Q")
SMALL: Final = Struct("=I")
ADDR: Final = Struct("=16s")
ENDPOINT: Final = Struct("=16sHxx")
TUPLE: Final = Struct("=16s16sHH")
POD: Final = Struct("=16s16sIxxxx")
INTENT: Final = Struct("=16sHxx16sHxxQQQQ16s16sHHBBBx")
CALLER: Final = Struct("=Q16sHHxxxx")
LISTENER: Final = Struct("=16sHH")
DESTINATION: Final = Struct("=16sHxx16sHxxQIxxxx")
ASKED: Final = Struct("=16sHxx16sHxx")
ASKED_BYTES: Final = ASKED.size
"""Of `DESTINATION`: the rest is the kernel's own."""
ADMISSION: Final = Struct("=QQII")
QUESTION: Final = Struct("=Q16sHxxxxxx")
VERDICT: Final = Struct("=QQQII16sHxxxxxx")
VIP: Final = Struct("=III")
AFFINITY: Final = Struct("=16sHxxIQ")
SLOT: Final = Struct("=II")
NODE_CLIENTS: Final = Struct("=IIQ")
START_RULES: Final = Struct("=IIQQQ")


_NO_ADDRESS: Final = bytes(16)


class IntentKind(IntEnum):
    """enum intent_kind."""

    CAPTURED = 1
    DIRECT = 2
    SERVED = 3
    ASTRAY = 4


class AdmissionKind(IntEnum):
    """enum admission_kind."""

    BY_PROXY = 1
    BY_VERDICT = 2
    BY_NODE = 3
    BY_SELF = 4


QUEUES: Final = 8
"""bpf/lib/config.h: QUEUES_BITS."""


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


class StartRule(IntEnum):
    """enum start_rule."""

    NAMED = 1
    ALL_PODS = 2


class PodFlag(IntFlag):
    """enum pod_flags."""

    NONE = 0
    REFUSED = 1
    FORWARDS = 2
    LEAVING = 4


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
    CONNECT_INTERFACE = 31
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
    CONNECT_STARTING = 85
    CONNECT_EARLY = 86
    INBOUND_TURNED_AWAY = 87


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


def push_listener(ip: IPAddress, kind: ListenerKind, queue: int = 0) -> bytes:
    """struct listener."""
    return LISTENER.pack(pack16(ip), kind, queue)


@dataclass(frozen=True, slots=True)
class Recalled:
    """What the application asked for, and the endpoint that the kernel picked of it if it was a VIP with
    slots: the proxy honours that pick, so that shares over many connections stay the balancer's.

    Attributes:
        host: the destination's address as text, by which places are shared out: its hash costs nothing.
    """

    destination: OriginalDestination
    picked: Endpoint | None
    host: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "host", ip_text(self.destination.ip))


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
