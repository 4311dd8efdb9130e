"""Values as messages, both ways, where the two have fields of the same names: what each field is, is said
once.

```
POINT = Record(Point, pb.Point, x=PLAIN, kind=EnumOf(Kind), label=Maybe(LABEL), parts=Many(PART))
```
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from ipaddress import ip_network
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf.message import Message

from ztunnel.errors import PeerError

T = TypeVar("T")


class FieldCodec(Protocol):
    """One field of a message."""

    def put(self, message: Any, name: str, value: Any) -> None:
        """Write the value."""

    def get(self, untrusted: Any, name: str) -> Any:
        """Read it. Raises PeerError or ValueError, with a reason."""


class Record(Generic[T]):
    """A value and its message; as a field, one that is always there."""

    def __init__(self, kind: Callable[..., T], message: type[Message], /, **fields: FieldCodec) -> None:
        self._kind = kind
        self._message = message
        self._fields = fields

    def render(self, value: T) -> Any:
        """The message of a value."""
        made: Any = self._message()
        for name, field in self._fields.items():
            field.put(made, name, getattr(value, name))
        return made

    def parse(self, untrusted: Any) -> T:
        """The value of a message.

        Raises:
            PeerError: it says what makes no sense.
        """
        try:
            return self._kind(**{name: field.get(untrusted, name) for name, field in self._fields.items()})
        except ValueError as error:
            raise PeerError(str(error)) from error

    def put(self, message: Any, name: str, value: T) -> None:
        """Write it as a field."""
        getattr(message, name).CopyFrom(self.render(value))

    def get(self, untrusted: Any, name: str) -> T:
        """Read it as a field."""
        return self.parse(getattr(untrusted, name))


class Plain:
    """A number, a text, a truth value or bytes."""

    def put(self, message: Any, name: str, value: Any) -> None:
        """Write it."""
        setattr(message, name, value)

    def get(self, untrusted: Any, name: str) -> Any:
        """Read it."""
        return getattr(untrusted, name)


class Optional(Plain):
    """One of these that may be missing: None."""

    def put(self, message: Any, name: str, value: Any) -> None:
        """Write it, if it is there."""
        if value is not None:
            setattr(message, name, value)

    def get(self, untrusted: Any, name: str) -> Any:
        """Read it, if it is there."""
        return getattr(untrusted, name) if untrusted.HasField(name) else None


class Listed:
    """Several texts or numbers, as a tuple."""

    def put(self, message: Any, name: str, value: Any) -> None:
        """Write them."""
        getattr(message, name).extend(value)

    def get(self, untrusted: Any, name: str) -> Any:
        """Read them."""
        return tuple(getattr(untrusted, name))


class Networks:
    """Several networks, as a tuple; in the message they are CIDRs."""

    def put(self, message: Any, name: str, value: Any) -> None:
        """Write them."""
        getattr(message, name).extend(map(str, value))

    def get(self, untrusted: Any, name: str) -> Any:
        """Read them. Raises ValueError: one is none."""
        return tuple(map(ip_network, getattr(untrusted, name)))


class Pairs:
    """Several pairs of texts, as a tuple of tuples; in the message they have a `name` and a `value`."""

    def put(self, message: Any, name: str, value: Any) -> None:
        """Write them."""
        for key, text in value:
            getattr(message, name).add(name=key, value=text)

    def get(self, untrusted: Any, name: str) -> Any:
        """Read them."""
        return tuple((each.name, each.value) for each in getattr(untrusted, name))


class EnumOf:
    """One of some texts."""

    def __init__(self, kind: type[StrEnum]) -> None:
        self._kind = kind

    def put(self, message: Any, name: str, value: Any) -> None:
        """Write it."""
        setattr(message, name, value.value)

    def get(self, untrusted: Any, name: str) -> Any:
        """Read it. Raises ValueError: there is none of that text."""
        return self._kind(getattr(untrusted, name))


class SetOf(EnumOf):
    """Several of some texts, as a frozen set."""

    def put(self, message: Any, name: str, value: Any) -> None:
        """Write them, sorted."""
        getattr(message, name).extend(sorted(each.value for each in value))

    def get(self, untrusted: Any, name: str) -> Any:
        """Read them. Raises ValueError."""
        return frozenset(self._kind(each) for each in getattr(untrusted, name))


class Maybe:
    """A record that may be missing: None."""

    def __init__(self, record: Record[Any]) -> None:
        self._record = record

    def put(self, message: Any, name: str, value: Any) -> None:
        """Write it, if it is there."""
        if value is not None:
            self._record.put(message, name, value)

    def get(self, untrusted: Any, name: str) -> Any:
        """Read it, if it is there."""
        return self._record.get(untrusted, name) if untrusted.HasField(name) else None


class Many:
    """Several records, as a tuple."""

    def __init__(self, record: Record[Any]) -> None:
        self._record = record

    def put(self, message: Any, name: str, value: Any) -> None:
        """Write them."""
        getattr(message, name).extend(map(self._record.render, value))

    def get(self, untrusted: Any, name: str) -> Any:
        """Read them."""
        return tuple(map(self._record.parse, getattr(untrusted, name)))


class OneOf:
    """A record of one of several kinds, each of which has a field of its own in the message."""

    def __init__(self, **records: tuple[type[Any], Record[Any]]) -> None:
        self._records = records

    def put(self, message: Any, name: str, value: Any) -> None:
        """Write it in the field of its kind."""
        for field, (kind, record) in self._records.items():
            if isinstance(value, kind):
                record.put(message, field, value)
                return

    def get(self, untrusted: Any, name: str) -> Any:
        """Read it. Raises ValueError: it is of no kind that is known here."""
        field = untrusted.WhichOneof(name)
        if field is None:
            raise ValueError(f"{name}: of a kind that is not known here")
        return self._records[field][1].get(untrusted, field)


PLAIN = Plain()
OPTIONAL = Optional()
LISTED = Listed()
NETWORKS = Networks()
PAIRS = Pairs()
