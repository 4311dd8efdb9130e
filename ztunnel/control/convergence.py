"""How long changes wait until one subscriber has acknowledged them; sans I/O."""

from __future__ import annotations

from collections.abc import Iterable


class Convergence:
    """One subscriber's. Tell it what changed, was sent and was answered, in this order; times are the
    caller's."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._unanswered: dict[str, tuple[str, float | None]] = {}

    def changed(self, types: Iterable[str], at: float) -> None:
        """Resources of these types have changed at that time."""
        for type_url in types:
            self._due.setdefault(type_url, at)

    def sent(self, type_url: str, nonce: str) -> None:
        """A response was sent, with all that is due of its type."""
        self._unanswered[type_url] = nonce, self._due.pop(type_url, None)

    def settle(self) -> None:
        """All was sent that can be: where nothing awaits an answer, what is due does not concern this
        subscriber."""
        if not self._unanswered:
            self._due.clear()

    def answered(self, type_url: str, nonce: str) -> float | None:
        """When the first change of the response was known that is answered with this; None where no change
        made it, or this is no answer."""
        awaited, at = self._unanswered.get(type_url, ("", None))
        if not nonce or nonce != awaited:
            return None
        del self._unanswered[type_url]
        return at
