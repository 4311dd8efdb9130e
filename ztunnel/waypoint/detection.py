"""Finds out what a client speaks by its first bytes, and gives them on to whoever speaks it.

Where HTTP is declared, only its version is found out. Where nothing is, a second is waited at most: a client
that says nothing waits for its server, and is passed through (Envoy's http_inspector, Istio's
protocolDetectionTimeout).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum

from ztunnel.errors import ConnectionFailed
from ztunnel.flow.transport import Receiver, Transport
from ztunnel.http2.frame import PREFACE

DETECT_SECONDS = 1.0

_REQUEST_LINE = re.compile(rb"[A-Z]{3,32} [!-~]+ HTTP/1\.[01]\r?\n")
_BEGINNING = re.compile(rb"[A-Z]{1,32}(?: (?:[!-~]+(?: (.*))?)?)?", re.DOTALL)
_VERSION = (b"HTTP/1.1\r\n", b"HTTP/1.0\r\n")
_LONGEST_LINE = 8 * 1024


class Spoken(Enum):
    """What a client speaks."""

    HTTP1 = "http1"
    HTTP2 = "http2"
    OTHER = "other"


def spoken(untrusted: bytes | bytearray, declared: bool) -> Spoken | None:
    """What begins so; None where more bytes will tell. `declared`: it is HTTP, of some version."""
    if PREFACE.startswith(untrusted[: len(PREFACE)]):
        return Spoken.HTTP2 if len(untrusted) >= len(PREFACE) else None
    if declared or _REQUEST_LINE.match(untrusted):
        return Spoken.HTTP1
    beginning = _BEGINNING.fullmatch(untrusted)
    if beginning is None or len(untrusted) > _LONGEST_LINE:
        return Spoken.OTHER
    version = bytes(beginning[1] or b"")
    return None if any(each.startswith(version) for each in _VERSION) else Spoken.OTHER


class Detector:
    """The receiver of a stream until it is known what is spoken on it. `found` says who is next."""

    def __init__(
        self, transport: Transport, declared: bool, found: Callable[[Spoken], Receiver | None]
    ) -> None:
        self._transport = transport
        self._declared = declared
        self._found: Callable[[Spoken], Receiver | None] | None = found
        self._next: Receiver | None = None
        self._early = bytearray()
        self._ended = False
        self._lost = False

    def silent(self) -> bool:
        """The time is over. Returns whether it had not been found out."""
        if self._found is None:
            return False
        self._decide(Spoken.HTTP1 if self._declared else Spoken.OTHER)
        return True

    def received(self, untrusted: memoryview) -> None:
        if self._next is not None:
            self._next.received(untrusted)
            return
        self._early += untrusted
        if self._found is None:
            return  # whoever is next is not here yet
        found = spoken(self._early, self._declared)
        if found is not None:
            self._decide(found)

    def ended(self) -> None:
        self._ended = True
        if self._next is not None:
            self._next.ended()
        else:
            self.silent()

    def writable(self) -> None:
        if self._next is not None:
            self._next.writable()

    def lost(self, error: ConnectionFailed | None) -> None:
        self._found = None
        self._lost = True
        if self._next is not None:
            self._next.lost(error)

    def attach(self, receiver: Receiver) -> None:
        """Who is next is here: give it what has come."""
        self._next = receiver
        if self._lost:
            receiver.lost(None)
            return
        early, self._early = bytes(self._early), bytearray()
        if early:
            receiver.received(memoryview(early))
        if self._ended:
            receiver.ended()

    def _decide(self, what: Spoken) -> None:
        found, self._found = self._found, None
        receiver = found(what) if found is not None else None
        if receiver is not None:
            self.attach(receiver)
