"""Token buckets of one rule: one for each key, of which there are only so many.

Clients make keys (a header may say anything), so there is a bound on them, and it is fair: where it is
reached, whoever has brought the most keys loses the one of them that was not used for the longest time. So a
client that makes up a million keys loses its own, and no bucket of anybody else's is full again by that.

```
_owners   owner ── keys, the one that was used last at the end
_ranks    how many keys ── owners that have so many
```
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from hashlib import blake2b
from math import floor
from typing import Final

from ztunnel.model.rate_limit import Limit

MOST_KEYS: Final = 10_000
"""Of one rule."""

_MOST_CHARACTERS: Final = 64
_DIGEST_BYTES: Final = 16
_ROUNDING: Final = 1e-6
"""A token that has come but for this is there."""


class Bucket:
    """What is kept is since when its tokens have come (as Envoy's AtomicTokenBucketImpl does it): nothing
    gets lost by rounding, however often it is looked at.

    Attributes:
        tokens: that there are, as of when it was found.
        owner: whose it is.
    """

    __slots__ = ("owner", "since", "tokens")

    def __init__(self, since: float, owner: Hashable) -> None:
        self.since = since
        self.tokens = 0.0
        self.owner = owner


class Buckets:
    """Those of one rule.

    Attributes:
        evicted: how many were forgotten because there were too many.
    """

    __slots__ = (
        "_full_seconds",
        "_most",
        "_of_key",
        "_owners",
        "_per_second",
        "_ranks",
        "_top",
        "evicted",
        "limit",
    )

    def __init__(self, limit: Limit, most: int = MOST_KEYS) -> None:
        self.limit = limit
        self.evicted = 0
        self._most = most
        self._per_second = limit.requests / limit.seconds
        self._full_seconds = limit.most / self._per_second if limit.most else 0.0
        self._of_key: dict[str, Bucket] = {}
        self._owners: dict[Hashable, OrderedDict[str, None]] = {}
        self._ranks: dict[int, OrderedDict[Hashable, None]] = {}
        self._top = 0

    def __len__(self) -> int:
        return len(self._of_key)

    def find(self, key: str, owner: Hashable, now: float) -> Bucket:
        """The bucket of a key, with the tokens that have come until `now`. `owner`: whose request it is."""
        found = self._of_key.get(key)
        if found is None:
            found = self._of_key[key] = Bucket(now - self._full_seconds, owner)
            self._give(key, owner)
            if len(self._of_key) > self._most:
                self._evict()
        elif found.owner != owner and self._has(owner) < self._has(found.owner) - 1:
            self._take(key, found.owner)
            found.owner = owner
            self._give(key, owner)
        else:
            self._owners[found.owner].move_to_end(key)
        found.since = max(found.since, now - self._full_seconds)
        found.tokens = (now - found.since) * self._per_second + _ROUNDING
        return found

    def take(self, bucket: Bucket) -> None:
        """One of its tokens; there is one."""
        bucket.tokens -= 1
        bucket.since += 1 / self._per_second

    def wait_of(self, bucket: Bucket) -> float:
        """Seconds until there is a token more than now; infinite where none come."""
        if not self._per_second:
            return float("inf")
        missing = floor(bucket.tokens) + 1 - bucket.tokens
        return missing / self._per_second

    def _has(self, owner: Hashable) -> int:
        keys = self._owners.get(owner)
        return len(keys) if keys is not None else 0

    def _give(self, key: str, owner: Hashable) -> None:
        keys = self._owners.get(owner)
        if keys is None:
            keys = self._owners[owner] = OrderedDict()
        else:
            self._leave(owner, len(keys))
        keys[key] = None
        self._enter(owner, len(keys))
        self._top = max(self._top, len(keys))

    def _take(self, key: str, owner: Hashable) -> None:
        keys = self._owners[owner]
        self._leave(owner, len(keys))
        del keys[key]
        if keys:
            self._enter(owner, len(keys))
        else:
            del self._owners[owner]
        if self._top not in self._ranks:
            self._top -= 1

    def _enter(self, owner: Hashable, count: int) -> None:
        rank = self._ranks.get(count)
        if rank is None:
            rank = self._ranks[count] = OrderedDict()
        rank[owner] = None

    def _leave(self, owner: Hashable, count: int) -> None:
        rank = self._ranks[count]
        del rank[owner]
        if not rank:
            del self._ranks[count]

    def _evict(self) -> None:
        owner = next(iter(self._ranks[self._top]))
        key = next(iter(self._owners[owner]))
        self._take(key, owner)
        del self._of_key[key]
        self.evicted += 1


def key_of(values: list[str]) -> str:
    """The key of these values: no others have it, and it is short."""
    text = "".join(f"{len(value)}:{value}" for value in values)
    if len(text) <= _MOST_CHARACTERS:
        return text
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=_DIGEST_BYTES).hexdigest()
