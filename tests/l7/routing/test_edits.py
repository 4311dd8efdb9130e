"""Changes of headers, in their order."""

from __future__ import annotations

import pytest

from ztunnel.l7.routing.edits import FieldEdits, MessageEdits, check
from ztunnel.l7.substitution import Facts
from ztunnel.model.route_action import NO_EDITS, Edits, HeaderEdits

FACTS = Facts({b"x-user": b"jason"}.get, {}.get)
FIELDS = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        (HeaderEdits(), FIELDS),
        (HeaderEdits(remove=("a",)), [(b"b", b"2")]),
        (HeaderEdits(set=(("a", "x"),)), [(b"b", b"2"), (b"a", b"x")]),
        (HeaderEdits(add=(("a", "x"),)), [*FIELDS, (b"a", b"x")]),
        (HeaderEdits(remove=("b",), add=(("b", "x"),)), [(b"a", b"1"), (b"a", b"3"), (b"b", b"x")]),
        (HeaderEdits(set=(("b", "x"),), add=(("b", "y"),)), [*FIELDS[::2], (b"b", b"x"), (b"b", b"y")]),
        (HeaderEdits(add=(("c", "%REQ(x-user)%"), ("d", "%REQ(none)%"))), [*FIELDS, (b"c", b"jason")]),
        (HeaderEdits(remove=("none",)), FIELDS),
    ],
)
def test_headers_are_changed(edits: HeaderEdits, expected: list[tuple[bytes, bytes]]) -> None:
    assert FieldEdits(edits).apply(FIELDS, FACTS) == expected


@pytest.mark.parametrize(
    ("edits", "why"),
    [
        (HeaderEdits(set=(("transfer-encoding", "chunked"),)), "cannot be changed"),
        (HeaderEdits(remove=("content-length",)), "cannot be changed"),
        (HeaderEdits(add=(("connection", "x"),)), "cannot be changed"),
        (HeaderEdits(add=(("a b", "x"),)), "not the name"),
        (HeaderEdits(add=(("a", "%"),)), "is doubled"),
    ],
)
def test_what_cannot_be_done_is_refused(edits: HeaderEdits, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check(edits)


def test_a_message_without_edits_is_left_alone() -> None:
    made = MessageEdits(NO_EDITS)
    assert made.request.nothing
    assert made.response.nothing
    assert not MessageEdits(Edits(response=HeaderEdits(remove=("a",)))).response.nothing
