"""Finds out who requests speak for, before anything else is decided about them.

Signatures take long, and the engine's thread is everybody's. Each is checked once per token; a request whose
token is not known waits for its turn: between callers, and of one caller between the addresses it calls from.
In a round of the engine no more is checked than takes a millisecond, or one signature. So whoever sends bad
tokens without end waits for himself, and slows others by that much a round; beyond what may wait he is
answered 503 at once.

```
request ── known, or nothing to check ──> concluded: refused, or goes on
   └── a signature ──> waits ── its turn ──> checked, known ──┘
```
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import inf
from typing import Final, NamedTuple, Protocol

from ztunnel.flow.queue import FairQueue
from ztunnel.l7.jwt.authentication import Authentication, Check, Outcome, refusal
from ztunnel.l7.jwt.authentications import Authentications
from ztunnel.l7.jwt.proofs import Proofs
from ztunnel.l7.jwt.token import Wrong
from ztunnel.l7.reply import OVERFLOW
from ztunnel.l7.request import Request
from ztunnel.waypoint.exchange.exchange import Exchange

ROUND_SECONDS: Final = 0.001
"""Of signatures in one round of the engine, and at least one of them."""
WAITING_OF_ONE: Final = 256
WAITING: Final = 4096
"""Requests that may wait for a signature, of one caller and of all."""

MISSED_SECONDS: Final = 60.0
"""Between two times that it is said of one policy that a key is missing."""

_OTHER_KEYS: Final = (Wrong.NO_KEY, Wrong.UNPROVED)

Find = Callable[[], Authentication]
"""The rules of the moment."""
Then = Callable[[Exchange], None]


class Clock(Protocol):
    """The engine, as far as it concerns this."""

    @property
    def clock(self) -> Callable[[], float]:
        """Gives monotonic seconds."""

    def next_round(self, callback: Callable[[], None], /) -> None:
        """Call back in the next round."""


class Source(NamedTuple):
    """Whose request it is: the identity at the other end, and its address."""

    identity: Hashable
    address: Hashable


class _Waiting(NamedTuple):
    """`again`: it goes on already, and may have to end."""

    exchange: Exchange
    find: Find
    source: Source
    then: Then
    again: bool


class Authenticator:
    """All of a waypoint's.

    Attributes:
        rules: those of all destinations.
        proofs: what is known of tokens.
        refused: is told why a request was refused.
        turned_away: requests that found too many waiting.
    """

    def __init__(self, clock: Clock, wall: Callable[[], float]) -> None:
        """`wall` gives seconds since the epoch."""
        self._clock = clock
        self._wall = wall
        self._queue: FairQueue[_Waiting] = FairQueue()
        self._of_caller: dict[Hashable, int] = {}
        self._works = False
        self.rules = Authentications()
        self.proofs = Proofs()
        self.refused: Callable[[str], None] | None = None
        self.turned_away = 0
        self._missed: set[str] = set()
        self._said: dict[str, float] = {}

    @property
    def waiting(self) -> int:
        """Requests that wait for a signature."""
        return len(self._queue)

    def take_missed(self) -> tuple[str, ...]:
        """The policies of which tokens have named keys that are not there, or are by none of those that are
        (an issuer may change a key and keep its name, or give it none), so that newer ones may be asked for.
        Of one policy that is said once a minute."""
        now = self._clock.clock()
        self._said = {name: at for name, at in self._said.items() if now - at < MISSED_SECONDS}
        found = tuple(sorted(self._missed - self._said.keys()))
        self._missed.clear()
        self._said.update(dict.fromkeys(found, now))
        return found

    def admit(self, exchange: Exchange, find: Find, source: Source, then: Then) -> None:
        """Find out who the request speaks for; where it may go on, `then` is called, perhaps before this
        returns. Otherwise it is answered."""
        if find().wants_nothing:
            then(exchange)
            return
        one = _Waiting(exchange, find, source, then, again=False)
        if self._concluded(one):
            return
        if len(self._queue) >= WAITING or self._of_caller.get(source.identity, 0) >= WAITING_OF_ONE:
            self.turned_away += 1
            exchange.reply(OVERFLOW)
            return
        self._wait(one)

    def judge_again(self, exchange: Exchange, find: Find, source: Source, then: Then) -> None:
        """Rules have changed: whether a request that goes on already would still do so. If so, `then` is
        called; otherwise it ends."""
        if exchange.asked is None:
            then(exchange)
            return
        one = _Waiting(exchange, find, source, then, again=True)
        if not self._concluded(one):
            self._wait(one)

    def expire(self, exchange: Exchange) -> None:
        """End it if its token has expired."""
        if exchange.until < self._clock.clock() and not exchange.over:
            self._refuse(exchange, Wrong.EXPIRED, again=True)

    def _wait(self, one: _Waiting) -> None:
        identity = one.source.identity
        self._of_caller[identity] = self._of_caller.get(identity, 0) + 1
        self._queue.push(identity, one.source.address, one)
        if not self._works:
            self._works = True
            self._clock.next_round(self._work)

    def _work(self) -> None:
        clock = self._clock.clock
        end = clock() + ROUND_SECONDS
        try:
            while len(self._queue):
                if self._take(self._queue.pull()) and clock() >= end:
                    break
        finally:  # a bug in one is none of the others'
            self._works = len(self._queue) > 0
            if self._works:
                self._clock.next_round(self._work)

    def _take(self, one: _Waiting) -> bool:
        """It is its turn. Whether a signature was checked for it."""
        left = self._of_caller[one.source.identity] - 1
        if left:
            self._of_caller[one.source.identity] = left
        else:
            del self._of_caller[one.source.identity]
        if one.exchange.over or self._concluded(one):  # another request may have brought the same token
            return False
        found = self._judge(one)
        if isinstance(found, Check):
            self.proofs.check(*found)
        if not self._concluded(one):  # it has several tokens
            self._wait(one)
        return True

    def _judge(self, one: _Waiting) -> Outcome | Check:
        exchange = one.exchange
        asked = exchange.asked if one.again else exchange.admitted
        assert asked is not None
        return one.find().judge(asked, self.proofs, self._wall())

    def _concluded(self, one: _Waiting) -> bool:
        """Whether it is known what becomes of it; if so, it is done."""
        found = self._judge(one)
        if isinstance(found, Check):
            return False
        exchange = one.exchange
        if found.wrong is not None:
            if found.wrong in _OTHER_KEYS and found.rule is not None:
                self._missed.add(found.rule.policy)
            self._refuse(exchange, found.wrong, again=one.again)
            return True
        rules, request = one.find(), exchange.admitted
        if not one.again:
            if rules.rules:
                exchange.asked = Request(
                    request.method, request.authority, request.path, list(request.fields)
                )
            rules.edit(request, found)
        exchange.until = inf if found.until == inf else self._clock.clock() + found.until - self._wall()
        request.claims = found.claims
        one.then(exchange)
        return True

    def _refuse(self, exchange: Exchange, wrong: Wrong, *, again: bool) -> None:
        if self.refused is not None:
            self.refused(wrong.value)
        reply = refusal(exchange.asked or exchange.admitted, wrong)
        if again:
            exchange.failure = wrong.value
            exchange.revoke(reply)
        else:
            exchange.reply(reply)
