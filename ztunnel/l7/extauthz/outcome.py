"""What an authorizer's answer means for a request: it goes on, changed, or it is answered.

Names and values that no header may have make the answer an error, and what frames a message or says whose it
is stays as it was: an authorizer cannot make one request two, nor send it to another host."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final
from urllib.parse import quote

from ztunnel.http1.head import Fields
from ztunnel.l7.field import can_stand_in_a_line
from ztunnel.l7.request import Request

DENIED: Final = 403
_FRAMING: Final = frozenset(
    b"host connection keep-alive proxy-connection transfer-encoding te trailer upgrade content-length".split()
)
_OF_RESPONSE: Final = _FRAMING | {b"server"}
_QUERY: Final = "-._~!$'()*,;:@/?"


class How(Enum):
    """What becomes of a header that there may be already (Envoy's HeaderAppendAction)."""

    SET = "set"
    APPEND = "append"
    ADD_IF_ABSENT = "add if absent"
    SET_IF_PRESENT = "set if present"


@dataclass(frozen=True, slots=True)
class HeaderChange:
    """A header that an authorizer wants; its name is in small letters."""

    name: bytes
    value: bytes
    how: How = How.SET


@dataclass(frozen=True, slots=True)
class Permit:
    """The request may go on.

    Attributes:
        request, removed: changes of its headers.
        response: changes of its response's.
        query, query_removed: parameters of its query that are set, and taken out.
    """

    request: tuple[HeaderChange, ...] = ()
    removed: tuple[bytes, ...] = ()
    response: tuple[HeaderChange, ...] = ()
    query: tuple[tuple[str, str], ...] = ()
    query_removed: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether the request goes on as it came."""
        return not (self.request or self.removed or self.query or self.query_removed)


@dataclass(frozen=True, slots=True)
class Denial:
    """The request is answered so."""

    status: int = DENIED
    fields: Fields = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Failed:
    """There is no answer, for that reason. `instead`: what the authorizer wants the request to be answered
    with then, where its status is 0 with that of its provider."""

    reason: str
    instead: Denial | None = None


Answer = Permit | Denial | Failed


def checked(answer: Answer) -> Answer:
    """The same, where all its headers can be headers."""
    if isinstance(answer, Permit):
        for change in (*answer.request, *answer.response):
            if not can_stand_in_a_line(change.name, change.value) and not change.name.startswith(b":"):
                return Failed(f"a header that is none: {change.name[:40]!r}")
    elif isinstance(answer, Denial):
        if any(not can_stand_in_a_line(name, value) for name, value in answer.fields):
            return Failed("a header of its denial that is none")
        if not 200 <= answer.status <= 599:
            return Failed(f"a denial with the status {answer.status}")
        return Denial(answer.status, _passed(answer.fields), answer.body)
    if isinstance(answer, Failed) and answer.instead is not None:
        instead = checked(replace(answer.instead, status=answer.instead.status or DENIED))
        status = answer.instead.status
        return Failed(answer.reason, replace(instead, status=status) if isinstance(instead, Denial) else None)
    return answer


def permitted(request: Request, permit: Permit) -> Request:
    """The request as it goes on."""
    if permit.plain:
        return request
    made = request.copy()
    removed = {name for name in permit.removed if name not in _FRAMING and not name.startswith(b":")}
    made.fields = [field for field in made.fields if field[0] not in removed]
    made.fields = changed(made.fields, permit.request, _FRAMING)
    if permit.query or permit.query_removed:
        made.path = _queried(made.path, permit)
    return made


def edited(response: Fields, changes: Iterable[HeaderChange]) -> Fields:
    """A response, of which `:status` is the first field, as the client gets it."""
    return (response[0], *changed(list(response[1:]), changes, _OF_RESPONSE))


def changed(
    fields: list[tuple[bytes, bytes]], changes: Iterable[HeaderChange], kept: frozenset[bytes]
) -> list[tuple[bytes, bytes]]:
    """Fields with these changes, but for the names in `kept` and pseudo-header fields. Several that set one
    name set all of these values."""
    began: set[bytes] = set()
    for change in changes:
        name = change.name
        if name in kept or name.startswith(b":"):
            continue
        present = any(each == name for each, _ in fields)
        how = change.how
        if (how is How.ADD_IF_ABSENT and present) or (how is How.SET_IF_PRESENT and not present):
            continue
        if how in (How.SET, How.SET_IF_PRESENT) and name not in began:
            fields = [field for field in fields if field[0] != name]
            began.add(name)
        fields.append((name, change.value))
    return fields


def _passed(fields: Fields) -> Fields:
    return tuple(field for field in fields if field[0] not in _OF_RESPONSE and field[0][:1] != b":")


def _queried(path: bytes, permit: Permit) -> bytes:
    """The path with other parameters in its query; those that are not named stay as they are written."""
    before, _, query = path.partition(b"?")
    names = {name.encode() for name, _ in permit.query} | {each.encode() for each in permit.query_removed}
    kept = [each for each in query.split(b"&") if each and each.partition(b"=")[0] not in names]
    kept += [f"{quote(name, _QUERY)}={quote(value, _QUERY)}".encode() for name, value in permit.query]
    return before + (b"?" + b"&".join(kept) if kept else b"")
