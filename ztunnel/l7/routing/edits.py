"""Changes of a message's headers, compiled: remove, then set, then add (Envoy's HeaderParser)."""

from __future__ import annotations

import re

from ztunnel.http1.head import Fields
from ztunnel.l7.substitution import Facts, Value
from ztunnel.model.route_action import Edits, HeaderEdits

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,256}")
_OURS = frozenset(("connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer",
                   "transfer-encoding", "upgrade"))  # fmt: skip
"""What says where a message ends, or belongs to one connection: nobody changes it (request smuggling)."""


def check(edits: HeaderEdits) -> None:
    """Raises ValueError, with a reason: it cannot be done."""
    FieldEdits(edits)


class FieldEdits:
    """Those of one message.

    Attributes:
        nothing: there are none.
    """

    __slots__ = ("_add", "_remove", "_set", "_set_names", "nothing")

    def __init__(self, edits: HeaderEdits) -> None:
        """Raises ValueError, with a reason: a header that is not to be changed, a value that makes no
        sense."""
        self._remove = frozenset(_named(name) for name in edits.remove)
        self._set = [(_named(name), Value(text)) for name, text in edits.set]
        self._add = [(_named(name), Value(text)) for name, text in edits.add]
        self._set_names = frozenset(name for name, _ in self._set)
        self.nothing = not (self._remove or self._set or self._add)

    def apply(self, fields: list[tuple[bytes, bytes]] | Fields, facts: Facts) -> list[tuple[bytes, bytes]]:
        """The fields with the changes in them. A value that comes to nothing is not added (Envoy's
        keep_empty_value off)."""
        unwanted = self._remove
        put = [(name, value.text(facts)) for name, value in self._set]
        more = [(name, value.text(facts)) for name, value in self._add]
        replaced = self._set_names
        kept = [field for field in fields if field[0] not in unwanted and field[0] not in replaced]
        kept += [field for field in put if field[1]]
        kept += [field for field in more if field[1]]
        return kept


class MessageEdits:
    """Those of a request and of its response."""

    __slots__ = ("request", "response")

    def __init__(self, edits: Edits) -> None:
        """Raises ValueError, as FieldEdits does."""
        self.request = FieldEdits(edits.request)
        self.response = FieldEdits(edits.response)


def _named(name: str) -> bytes:
    if not _NAME.fullmatch(name):
        raise ValueError(f"not the name of a header: {name[:80]!r}")
    if name in _OURS:
        raise ValueError(f"{name} cannot be changed: it says how the message is written")
    return name.encode()
