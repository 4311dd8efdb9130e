"""A place in an object, and the typed reads of it: every wrong thing is noted with its field.

Readers return a default and note a fault where a value is wrong, so that reading goes on and the operator
learns of everything at once. What an object is written in is the business of who makes its fields: YAML
(`manifest.py`), or the plain values of an API (`value.py`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from enum import StrEnum
from re import compile as pattern
from typing import Final

_PLAIN: Final = pattern(r"[A-Za-z0-9_-]+")
_INTEGER: Final = pattern(r"-?(0|[1-9][0-9]{0,17})")
_DECIMAL: Final = pattern(r"-?[0-9]{1,18}(\.[0-9]{0,18})?([eE][-+]?[0-9]{1,2})?|-?\.[0-9]{1,18}")


class Kind(StrEnum):
    """What stands at a place, as a fault says it."""

    TEXT = "a string"
    INTEGER = "a whole number"
    NUMBER = "a number"
    FLAG = "a boolean"
    NULL = "null"
    MAPPING = "a mapping"
    LIST = "a list"
    TIMESTAMP = "a timestamp"
    OTHER = "something else"


class Field(ABC):
    """One place. `path` leads to it from the root of its object: `spec.ports[0].name`."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    @abstractmethod
    def line(self) -> int:
        """The line of the document on which it stands, from 1; 0 where there are no lines."""

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """What stands here."""

    @abstractmethod
    def fault(self, message: str) -> None:
        """Note that this place is wrong."""

    @abstractmethod
    def sub(self, name: str) -> Field | None:
        """The field of that name, or None where it is absent or null (or this is no mapping)."""

    @abstractmethod
    def pairs(self) -> Iterator[tuple[str, Field]]:
        """Names and fields of a mapping with free keys; a key that is no scalar is a fault."""

    @abstractmethod
    def _elements(self) -> list[Field]:
        """Those of the list that this is."""

    @abstractmethod
    def _scalar(self) -> str:
        """The text of the scalar that this is, as it is written."""

    def _what(self) -> str:
        """What stands here, in the words of a fault."""
        kind = self.kind
        return Kind.NUMBER.value if kind is Kind.INTEGER else kind.value

    def is_mapping(self) -> bool:
        """Whether this is a mapping; a fault is noted where it is not."""
        if self.kind is Kind.MAPPING:
            return True
        self._wrong(Kind.MAPPING.value)
        return False

    def is_null(self) -> bool:
        """Whether nothing, `~` or `null` stands here, which Kubernetes reads as an absent field."""
        return self.kind is Kind.NULL

    def only(self, names: Collection[str], similar_to: Collection[str] | None = None) -> None:
        """Note each field whose name is none of `names`; with `similar_to`, only those that look like a slip
        of one."""
        if not self.is_mapping():
            return
        for name, below in self.pairs():
            if name in names:
                continue
            from difflib import get_close_matches  # of no use to a proxy that is given no objects to read

            guess = get_close_matches(name, names if similar_to is None else similar_to, n=1, cutoff=0.75)
            if guess:
                below.fault(f"unknown field; did you mean {guess[0]}?")
            elif similar_to is None:
                below.fault("unknown field")

    def each(self, name: str) -> list[Field]:
        """The elements of the list of that name; none where it is absent."""
        below = self.sub(name)
        if below is None:
            return []
        if below.kind is not Kind.LIST:
            below._wrong(Kind.LIST.value)
            return []
        return below._elements()

    def text(self, name: str, default: str = "") -> str:
        """The string of that name."""
        below = self.sub(name)
        return default if below is None else below.as_text(default)

    def flag(self, name: str) -> bool:
        """The boolean of that name, False where it is absent."""
        below = self.sub(name)
        if below is None:
            return False
        if below.kind is not Kind.FLAG:
            below._wrong(Kind.FLAG.value)
            return False
        return below._scalar().lower() in ("true", "yes", "on")

    def as_text(self, default: str = "") -> str:
        """This as a string. A plain timestamp counts as one; a number or boolean has to stand in quotes."""
        if self.kind in (Kind.TEXT, Kind.TIMESTAMP):
            return self._scalar()
        self._wrong(Kind.TEXT.value)
        return default

    def as_number(self) -> int | None:
        """This as a decimal integer."""
        if self.kind is Kind.INTEGER and _INTEGER.fullmatch(text := self._scalar()):
            return int(text)
        self._wrong("a decimal number")
        return None

    def as_decimal(self) -> float | None:
        """This as a number that may have a fraction; neither infinite nor none at all."""
        if self.kind in (Kind.INTEGER, Kind.NUMBER) and _DECIMAL.fullmatch(text := self._scalar()):
            return float(text)
        self._wrong("a decimal number")
        return None

    def holds_number(self) -> bool:
        """Whether a number stands here; for fields that take a number or a name."""
        return self.kind is Kind.INTEGER

    def _wrong(self, wanted: str) -> None:
        bare = self.kind in (Kind.INTEGER, Kind.NUMBER, Kind.FLAG)
        quotes = "; write it in quotes" if wanted == Kind.TEXT.value and bare else ""
        self.fault(f"must be {wanted}, is {self._what()}{quotes}")


def join(path: str, name: str) -> str:
    """The path of the field `name` of what is at `path`."""
    if not _PLAIN.fullmatch(name):
        return f"{path}[{name}]"
    return f"{path}.{name}" if path else name
