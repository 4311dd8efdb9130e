"""What was worked out of header blocks that a peer sends again and again, which need not be looked through
each time."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from ztunnel.http2.fields import Fields

_MOST: Final = 16
"""Of one peer; then it starts afresh."""

_Found = TypeVar("_Found")


class Repeats(Generic[_Found]):
    """Of one peer: by the very object that a block's fields are, as whoever decodes them has the same one for
    a block that says the same (`decoder`). Only those that come again are to be kept
    (`FieldReader.repeated`)."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        # While the fields are kept, no other object has their id.
        self._kept: dict[int, tuple[Fields, _Found]] = {}

    def get(self, untrusted: Fields) -> _Found | None:
        """What was kept of these; None: nothing."""
        kept = self._kept.get(id(untrusted))
        return kept[1] if kept is not None else None

    def keep(self, untrusted: Fields, found: _Found) -> _Found:
        """This was worked out of these."""
        if len(self._kept) >= _MOST:
            self._kept.clear()
        self._kept[id(untrusted)] = untrusted, found
        return found
