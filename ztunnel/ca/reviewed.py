"""What the API server has said of tokens, for a short while, and how often it may be asked.

A token that is known costs no question for ten seconds; in an outage of the API server it is good for five
minutes more, but never past its own end. One that is not known is refused for a few seconds without asking
again. Questions that end with a refusal are paid for by the address that they came from: who sends garbage
comes to be refused without a question, and nobody else notices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ztunnel.ca.caller import Caller, Reason, Refused
from ztunnel.flow.rate import Bucket, Rate, Recent
from ztunnel.model.address import IPAddress

_GOOD_SECONDS: Final = 10.0  # kube-apiserver: authentication-token-webhook-cache-ttl, 2 min
_BAD_SECONDS: Final = 5.0
_OUTAGE_SECONDS: Final = 300.0
_MOST: Final = 4096
_SOURCES: Final = 4096

_FAILURES: Final = Rate(20, 2, 20)
"""Of one address."""
_QUESTIONS: Final = Rate(1000, 200, 1000)
"""Of all together."""


@dataclass(frozen=True, slots=True)
class _Entry:
    answer: Caller | Refused
    until: float
    most: float


class Reviewed:
    """The answers; times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._entries: dict[bytes, _Entry] = {}
        self._questions = Bucket(_QUESTIONS, now)
        self._now = now
        self._failures: Recent[IPAddress, Bucket] = Recent(_SOURCES, lambda: Bucket(_FAILURES, self._now))

    def recall(self, digest: bytes, now: float) -> Caller | None:
        """Who has this token, if that is known.

        Raises:
            Refused: it is known that nobody has it.
        """
        entry = self._entries.get(digest)
        if entry is None or now >= entry.until:
            return None
        if isinstance(entry.answer, Refused):
            raise Refused(entry.answer.reason, str(entry.answer))
        return entry.answer

    def recall_in_outage(self, digest: bytes, now: float) -> Caller | None:
        """Who had this token when the API server was asked last."""
        entry = self._entries.get(digest)
        if entry is None or now >= entry.most or isinstance(entry.answer, Refused):
            return None
        return entry.answer

    def admit(self, source: IPAddress, now: float) -> None:
        """Say whether the API server may be asked for `source` now.

        Raises:
            Refused: it has sent too many tokens that nobody has, or there are too many questions in all.
        """
        self._now = now
        if self._failures.of(source).level(now) < 1:
            raise Refused(Reason.TOO_MANY, f"too many tokens from {source} were refused: try again later")
        if self._questions.level(now) < 1:
            raise Refused(Reason.TOO_MANY, "too many tokens are to be checked: try again later")
        self._questions.take(1, now)

    def remember(self, digest: bytes, caller: Caller, left_seconds: float | None, now: float) -> None:
        """The API server knows the token; `left_seconds` until it expires, as it says itself."""
        end = now + (left_seconds if left_seconds is not None else _OUTAGE_SECONDS)
        self._put(digest, _Entry(caller, min(now + _GOOD_SECONDS, end), min(now + _OUTAGE_SECONDS, end)))

    def refuse(self, digest: bytes, refused: Refused, source: IPAddress, now: float) -> None:
        """The API server does not know the token, which came from `source`."""
        self._failures.of(source).take(1, now)
        self._put(digest, _Entry(Refused(refused.reason, str(refused)), now + _BAD_SECONDS, now))

    def _put(self, digest: bytes, entry: _Entry) -> None:
        self._entries.pop(digest, None)
        if len(self._entries) >= _MOST:
            del self._entries[next(iter(self._entries))]
        self._entries[digest] = entry
