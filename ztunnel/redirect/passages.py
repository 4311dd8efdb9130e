"""The structs of `bpf/lib/forwards.h` in Python: what a pod only forwards, told by the kernel and to it."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from ztunnel.model.address import Endpoint, IPAddress, pack16
from ztunnel.redirect.layout import pull_ip

INTERFACE = Struct("=QIxxxx")
PASSAGE = Struct("=Q16s16sH6x")
FORWARDED = Struct("=QQ16s16sHH16s16sHHIIBBBBI120s")


class Forwarded(NamedTuple):
    """A packet that a pod was to forward, and which was dropped.

    Attributes:
        time_ns: CLOCK_MONOTONIC.
        cookie: the pod's namespace.
        opener, called: the connection's ends as the one who opens it knows them, before any translation.
        source, destination: this packet's ends at FORWARD, where a destination has been translated already,
            and a source not yet.
        sequence, acknowledged: of its TCP header.
        syn: whether it opens the connection.
        inwards: whether the connection comes from outside of the pod.
        reply: whether the packet goes back to the opener.
        interface: by which it came.
        whole: the packet, from its IP header on, where it opens a connection inwards; empty for others, and
            where it is longer than a SYN without payload.
    """

    time_ns: int
    cookie: int
    opener: Endpoint
    called: Endpoint
    source: Endpoint
    destination: Endpoint
    sequence: int
    acknowledged: int
    syn: bool
    inwards: bool
    reply: bool
    interface: int = 0
    whole: bytes = b""


def _ends(
    source: bytes, destination: bytes, source_port: int, destination_port: int
) -> tuple[Endpoint, Endpoint]:
    return Endpoint(pull_ip(source), source_port), Endpoint(pull_ip(destination), destination_port)


def pull_forwarded(packed: bytes) -> Forwarded:
    """struct forwarded."""
    time_ns, cookie, *ends, sequence, acknowledged, syn, inwards, reply, size, interface, whole = (
        FORWARDED.unpack(packed)
    )
    flags = syn != 0, inwards != 0, reply != 0
    told = time_ns, cookie, *_ends(*ends[:4]), *_ends(*ends[4:]), sequence, acknowledged, *flags
    return Forwarded(*told, interface, whole[:size])


def push_interface(cookie: int, index: int) -> bytes:
    """struct interface."""
    return INTERFACE.pack(cookie, index)


def push_passage(cookie: int, source: IPAddress, called: Endpoint) -> bytes:
    """struct passage."""
    return PASSAGE.pack(cookie, pack16(source), pack16(called.ip), called.port)
