"""A request's place in a trace: read from its headers, and written into them for whoever comes next.

Sources: W3C Trace Context (traceparent), B3 propagation of Zipkin (openzipkin/b3-propagation). What is
malformed begins a new trace, as if it were not there; two contexts that say different things are one lie.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Protocol

from ztunnel.http1.head import Fields

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_B3 = re.compile(rb"([0-9a-f]{16}|[0-9a-f]{32})-([0-9a-f]{16})(?:-([01d])(?:-[0-9a-f]{16})?)?")
_TRACE_ID = re.compile(rb"[0-9a-f]{16}|[0-9a-f]{32}")
_SPAN_ID = re.compile(rb"[0-9a-f]{16}")
_W3C, _STATE, _SINGLE = b"traceparent", b"tracestate", b"b3"
_MULTI = (b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"x-b3-sampled", b"x-b3-flags")
_NO_HALF = b"0" * 16
_OF_B3 = frozenset((_SINGLE, *_MULTI))
_OURS = frozenset((_W3C, *_OF_B3))


class Rng(Protocol):
    """Where ids and chances come from (`random.Random`)."""

    def random(self) -> float:
        """From 0 to 1."""

    def getrandbits(self, k: int, /) -> int:
        """An integer of `k` bits."""


class Context(NamedTuple):
    """A span: its own and its trace's id in hexadecimal, its parent's, empty for none; and whether it is
    reported."""

    trace_id: str
    span_id: str
    parent_id: str
    sampled: bool


class _Said(NamedTuple):
    """What a request says: ids are empty where it says none, `sampled` is None where it leaves that open."""

    trace_id: str = ""
    span_id: str = ""
    sampled: bool | None = None


class Spoken(NamedTuple):
    """Which headers tell of traces.

    Attributes:
        w3c: W3C's are read, and always written; otherwise they pass as they are.
        b3: those of B3 are always written, and count where both are there; otherwise they are read where
            there is none of W3C's, and written where the request came with them.
        short: a new trace gets an id of 64 bits.
    """

    w3c: bool = True
    b3: bool = False
    short: bool = False


W3C: Final = Spoken()


def enter(
    fields: list[tuple[bytes, bytes]], sampling: float, rng: Rng, spoken: Spoken = W3C, below: bytes = b""
) -> Context:
    """Begin a span for a request, below the one that its headers name, else `below` (a traceparent; empty for
    none), and have them name it.

    A caller that has decided whether the trace is reported is followed; else a share `sampling` (0 to 1) is.
    """
    said = _read(fields, spoken) or _of_w3c([(_W3C, below)]) or _Said()
    sampled = rng.random() < sampling if said.sampled is None else said.sampled
    trace_id = said.trace_id or f"{rng.getrandbits(64 if spoken.short else 128) or 1:032x}"
    context = Context(trace_id, f"{rng.getrandbits(64) or 1:016x}", said.span_id, sampled)
    names = {name for name, _ in fields}
    if spoken.b3 and _SINGLE not in names:
        names.add(_MULTI[0])
    replaced = _OURS if spoken.w3c else _OF_B3
    kept = [field for field in fields if field[0] not in replaced]
    if spoken.w3c and not _goes_on(fields, context):
        kept = [field for field in kept if field[0] != _STATE]
    fields[:] = kept
    fields.extend(_written(context, names, w3c=spoken.w3c))
    return context


def _goes_on(fields: list[tuple[bytes, bytes]], context: Context) -> bool:
    """Whether it is W3C's trace that goes on, whose `tracestate` stands there."""
    said = _of_w3c(fields)
    return said is not None and said.trace_id == context.trace_id


def hide(fields: list[tuple[bytes, bytes]]) -> None:
    """Have them say nothing of any trace."""
    fields[:] = [field for field in fields if field[0] not in _OURS and field[0] != _STATE]


def _written(context: Context, names: set[bytes], *, w3c: bool) -> list[tuple[bytes, bytes]]:
    trace_id, span_id, parent_id = (each.encode() for each in context[:3])
    flag = b"1" if context.sampled else b"0"
    made = [(_W3C, b"00-%b-%b-0%b" % (trace_id, span_id, flag))] if w3c else []
    trace_id = trace_id.removeprefix(_NO_HALF)  # to B3 an id of 64 bits is one of 16 digits
    if _SINGLE in names:
        value = b"%b-%b-%b" % (trace_id, span_id, flag)
        made.append((_SINGLE, value + b"-" + parent_id if parent_id else value))
    if not names.isdisjoint(_MULTI):
        made += [(_MULTI[0], trace_id), (_MULTI[1], span_id), (_MULTI[3], flag)]
        if parent_id:
            made.append((_MULTI[2], parent_id))
    return made


def _read(fields: list[tuple[bytes, bytes]], spoken: Spoken) -> _Said | None:
    """What they say, in the order that Envoy's tracers of either kind have."""
    if not spoken.w3c:
        return _of_b3(fields) or _of_multi(fields)
    if spoken.b3:
        return _of_b3(fields) or _of_multi(fields) or _of_w3c(fields)
    return _of_w3c(fields) or _of_b3(fields) or _of_multi(fields)


def _one(fields: list[tuple[bytes, bytes]] | Fields, name: bytes) -> bytes:
    """The value of a header that stands there once; empty otherwise."""
    values = [value for each, value in fields if each == name]
    return values[0] if len(values) == 1 else b""


def _of_w3c(fields: list[tuple[bytes, bytes]] | Fields) -> _Said | None:
    found = _TRACEPARENT.fullmatch(_one(fields, _W3C))
    if found is None or found[1] == b"ff" or (found[1] == b"00" and found[5]):
        return None
    if not int(found[2], 16) or not int(found[3], 16):
        return None
    return _Said(found[2].decode(), found[3].decode(), bool(int(found[4], 16) & 1))


def _of_b3(fields: list[tuple[bytes, bytes]] | Fields) -> _Said | None:
    value = _one(fields, _SINGLE)
    if value in (b"0", b"1", b"d"):
        return _Said(sampled=value != b"0")
    found = _B3.fullmatch(value)
    if found is None or not int(found[1], 16) or not int(found[2], 16):
        return None
    return _Said(found[1].decode().rjust(32, "0"), found[2].decode(), found[3] != b"0" if found[3] else None)


def _of_multi(fields: list[tuple[bytes, bytes]] | Fields) -> _Said | None:
    trace_id, span_id = _one(fields, _MULTI[0]).lower(), _one(fields, _MULTI[1]).lower()
    flag = _one(fields, _MULTI[3]).lower()
    sampled = {b"1": True, b"true": True, b"0": False, b"false": False}.get(flag)
    if _one(fields, _MULTI[4]) == b"1":
        sampled = True
    good = _TRACE_ID.fullmatch(trace_id) and _SPAN_ID.fullmatch(span_id)
    if good and int(trace_id, 16) and int(span_id, 16):
        return _Said(trace_id.decode().rjust(32, "0"), span_id.decode(), sampled)
    return _Said(sampled=sampled) if sampled is not None else None
