"""One type on a stream of delta xDS, as its publisher knows it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Topic:
    """One type on the stream: what is subscribed to, versions sent by name, the nonces sent last, not
    answered yet, and accepted last.

    `doubtful` are the names of which what was sent may not be what is current; None: all. Texts in `sent` are
    interned: each message gives new ones, and of 50 subscribers with 6,000 resources they took 40 MiB.
    `asked` are the names that have been subscribed to and not been answered for: they are answered also
    where nothing bears them.
    """

    everything: bool = False
    names: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    sent: dict[str, str] = field(default_factory=dict)
    nonce: str = ""
    awaited: str = ""
    acknowledged: str = ""
    greeted: bool = False
    rejection: str = ""
    doubtful: set[str] | None = None


@dataclass(frozen=True, slots=True)
class TypeStatus:
    """How far a subscriber is with one type: nonces of the last response and of the last one that it accepted
    as a whole, what it said about the one that it did not, and whether there is nothing that it was not sent.
    Nonces are empty where there was none."""

    sent: str
    acknowledged: str
    rejection: str
    current: bool
