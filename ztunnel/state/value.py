"""Fields of an object that is plain values, as JSON of the Kubernetes API gives them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

from ztunnel.errors import Fault
from ztunnel.state.field import Field, Kind, join

_KINDS: Final[dict[type, Kind]] = {
    str: Kind.TEXT,
    dict: Kind.MAPPING,
    list: Kind.LIST,
    bool: Kind.FLAG,
    int: Kind.INTEGER,
    float: Kind.NUMBER,
    type(None): Kind.NULL,
}


class ValueField(Field):
    """A place in a value. Faults go to `faults`, without a file and a line.

    Not `strict`: fields that are not known here are no faults. The API server has checked them by a schema
    that may be newer than we are.
    """

    __slots__ = ("_faults", "_strict", "_value")

    def __init__(self, value: Any, path: str, faults: list[Fault], *, strict: bool = True) -> None:
        super().__init__(path)
        self._value = value
        self._faults = faults
        self._strict = strict

    @property
    def line(self) -> int:
        """There are none."""
        return 0

    @property
    def kind(self) -> Kind:
        """What stands here."""
        return _KINDS.get(type(self._value), Kind.OTHER)

    def fault(self, message: str) -> None:
        """Note that this place is wrong."""
        self._faults.append(Fault("", 0, self.path, message))

    def sub(self, name: str) -> Field | None:
        """The field of that name, or None where it is absent or null (or this is no mapping)."""
        value = self._value.get(name) if isinstance(self._value, dict) else None
        return None if value is None else self._at(value, join(self.path, name))

    def pairs(self) -> Iterator[tuple[str, Field]]:
        """Names and fields of a mapping with free keys."""
        if self.is_mapping():
            for name, value in self._value.items():
                yield name, self._at(value, join(self.path, name))

    def only(self, names: Collection[str], similar_to: Collection[str] | None = None) -> None:
        """As of every field; where it is not strict, only that this is a mapping."""
        if self._strict:
            super().only(names, similar_to)
        else:
            self.is_mapping()

    def _elements(self) -> list[Field]:
        return [self._at(value, f"{self.path}[{index}]") for index, value in enumerate(self._value)]

    def _scalar(self) -> str:
        return str(self._value)

    def _at(self, value: Any, path: str) -> ValueField:
        return ValueField(value, path, self._faults, strict=self._strict)
