"""Captured calls that wait for the far end's answer, as the kernel reports them: `struct held` of
`bpf/lib/reports.h`."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

from ztunnel.model.address import PeerAddress
from ztunnel.redirect.layout import pull_ip

HELD: Final = Struct("=Q16sHHxxxx16sHxx16sHxxBB6x120s")
_CALLER: Final = Struct("=Q16sH")
_CALLER_BYTES: Final = 32
_EVENT_AT: Final = 72
_SYN_AT: Final = 80


class HeldEvent(IntEnum):
    """enum held_event."""

    CALLED = 1
    GAVE_UP = 2


_GAVE_UP: Final = int(HeldEvent.GAVE_UP)


class HeldCall:
    """One report of such a call. No named tuple: each connection has one, and objects of a compiled class are
    made in a fifth of the time.

    Attributes:
        caller: which call, as the kernel's map has it (`layout.push_caller`).
        cookie: the calling pod's namespace.
        peer: the caller's end.
        gave_up: the application waits no longer; it comes a second time where it was refused.
        destination: what it called and what was picked of that, packed as `Recall.known` takes it.
        syn: the packet, from its IP header on; its TCP checksum is not complete.
    """

    __slots__ = ("caller", "cookie", "destination", "gave_up", "peer", "syn")

    def __init__(  # noqa: PLR0913 (what the kernel says of a call)
        self, caller: bytes, cookie: int, peer: PeerAddress, gave_up: bool, destination: bytes, syn: bytes
    ) -> None:
        self.caller = caller
        self.cookie = cookie
        self.peer = peer
        self.gave_up = gave_up
        self.destination = destination
        self.syn = syn

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, HeldCall):
            return False
        return self.gave_up == other.gave_up and push_held(self) == push_held(other)

    def __hash__(self) -> int:
        return hash(self.caller)


def push_held(held: HeldCall) -> bytes:
    """A call that waits, as `pull_held` reads it."""
    size = len(held.syn)
    syn = held.syn.ljust(HELD.size - _SYN_AT, b"\0")
    return held.caller + held.destination + bytes((HeldEvent.CALLED, size)).ljust(8, b"\0") + syn


def pull_held(packed: bytes) -> HeldCall:
    """struct held."""
    cookie, ip, port = _CALLER.unpack_from(packed)
    syn_bytes = packed[_EVENT_AT + 1]
    return HeldCall(
        packed[:_CALLER_BYTES],
        cookie,
        PeerAddress(pull_ip(ip), port),
        packed[_EVENT_AT] == _GAVE_UP,
        packed[_CALLER_BYTES:_EVENT_AT],
        packed[_SYN_AT : _SYN_AT + syn_bytes],
    )
