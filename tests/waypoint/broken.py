"""Connections of HTTP/2 that no client may have: of the kinds that h2spec tries, and floods."""

from __future__ import annotations


def frame(kind: int, flags: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    """One, as it is on the wire; `length`: that it says it has."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
BEGINNING = PREFACE + frame(4, 0, 0, b"")
BLOCK = b"\x82\x86\x84\x41\x01a"
BROKEN = {
    "no settings first": PREFACE + frame(6, 0, 0, bytes(8)),
    "an answer to settings first": PREFACE + frame(4, 1, 0, b""),
    "data on no stream": BEGINNING + frame(0, 0, 0, b"abc"),
    "data on an idle stream": BEGINNING + frame(0, 0, 1, b"abc"),
    "headers on an even stream": BEGINNING + frame(1, 5, 2, BLOCK),
    "a stream that goes back": BEGINNING + frame(1, 5, 5, BLOCK) + frame(1, 5, 3, BLOCK),
    "settings of a stream": BEGINNING + frame(4, 0, 1, b""),
    "settings of half a setting": BEGINNING + frame(4, 0, 0, b"abc"),
    "a window too large": BEGINNING + frame(8, 0, 0, (1 << 31).to_bytes(4, "big")) * 1
    + frame(8, 0, 0, ((1 << 31) - 1).to_bytes(4, "big")),
    "a window by nothing": BEGINNING + frame(8, 0, 0, bytes(4)),
    "a ping of four": BEGINNING + frame(6, 0, 0, bytes(4)),
    "a promise": BEGINNING + frame(5, 4, 1, bytes(4) + BLOCK),
    "a frame too large": BEGINNING + frame(0, 0, 1, b"", length=1 << 20),
    "what is no block": BEGINNING + frame(1, 5, 1, b"\xff\xff\xff\xff\xff\xff"),
    "another frame in a block": BEGINNING + frame(1, 1, 1, BLOCK) + frame(6, 0, 0, bytes(8)),
    "a continuation of nothing": BEGINNING + frame(9, 4, 1, BLOCK),
    "continuations without end": BEGINNING + frame(1, 1, 1, BLOCK) + frame(9, 0, 1, b"") * 2000,
    "resets without end": BEGINNING
    + b"".join(frame(1, 5, n, BLOCK) + frame(3, 0, n, bytes(4)) for n in range(1, 8001, 2)),
    "pings without end": BEGINNING + frame(6, 0, 0, bytes(8)) * 20_000,
    "settings without end": BEGINNING + frame(4, 0, 0, b"") * 20_000,
    "empty data without end": BEGINNING + frame(1, 4, 1, BLOCK) + frame(0, 0, 1, b"") * 20_000,
}  # fmt: skip
