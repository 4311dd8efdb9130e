"""A request's place in a trace: read from its headers, and written into them for whoever comes next.

Sources: W3C Trace Context (traceparent), B3 propagation of Zipkin (openzipkin/b3-propagation). What is
malformed begins a new trace, as if it were not there; two contexts that say different things are one lie.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

from ztunnel.http1.head import Fields

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_B3 = re.compile(rb"([0-9a-f]{16}|[0-9a-f]{32})-([0-9a-f]{16})(?:-([01d])(?:-[0-9a-f]{16})?)?")
_TRACE_ID = re.compile(rb"[0-9a-f]{16}|[0-9a-f]{32}")
_SPAN_ID = re.compile(rb"[0-9a-f]{16}")
_W3C, _STATE, _SINGLE = b"traceparent", b"tracestate", b"b3"
_MULTI = (b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"x-b3-sampled", b"x-b3-flags")
_OURS = frozenset((_W3C, _SINGLE, *_MULTI))


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


def has_context(fields: list[tuple[bytes, bytes]]) -> bool:
    """Whether a request says where in a trace it is, or whether it is reported."""
    return any(name in _OURS for name, _ in fields)


def enter(
    fields: list[tuple[bytes, bytes]], sampling: float, rng: Rng, b3: bool = False, short: bool = False
) -> Context:
    """Begin a span for a request, below the one that its headers name, and have them name it.

    A caller that has decided whether the trace is reported is followed; else a share `sampling` (0 to 1) is.
    W3C's header is always written, those of B3 where the request came with them, or `b3` asks for them.
    `short`: a new trace gets an id of 64 bits.
    """
    said = _read(fields)
    sampled = rng.random() < sampling if said.sampled is None else said.sampled
    trace_id = said.trace_id or f"{rng.getrandbits(64 if short else 128) or 1:032x}"
    context = Context(trace_id, f"{rng.getrandbits(64) or 1:016x}", said.span_id, sampled)
    names = {name for name, _ in fields}
    if b3 and _SINGLE not in names:
        names.add(_MULTI[0])
    kept = [field for field in fields if field[0] not in _OURS]
    if not _of_w3c(fields):
        kept = [field for field in kept if field[0] != _STATE]
    fields[:] = kept
    fields.extend(_written(context, names))
    return context


def hide(fields: list[tuple[bytes, bytes]]) -> None:
    """Have them say nothing of any trace."""
    fields[:] = [field for field in fields if field[0] not in _OURS and field[0] != _STATE]


def _written(context: Context, names: set[bytes]) -> list[tuple[bytes, bytes]]:
    trace_id, span_id, parent_id = (each.encode() for each in context[:3])
    flag = b"1" if context.sampled else b"0"
    made = [(_W3C, b"00-%b-%b-0%b" % (trace_id.rjust(32, b"0"), span_id, flag))]
    if _SINGLE in names:
        value = b"%b-%b-%b" % (trace_id, span_id, flag)
        made.append((_SINGLE, value + b"-" + parent_id if parent_id else value))
    if not names.isdisjoint(_MULTI):
        made += [(_MULTI[0], trace_id), (_MULTI[1], span_id), (_MULTI[3], flag)]
        if parent_id:
            made.append((_MULTI[2], parent_id))
    return made


def _read(fields: list[tuple[bytes, bytes]] | Fields) -> _Said:
    return _of_w3c(fields) or _of_b3(fields) or _of_multi(fields) or _Said()


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
