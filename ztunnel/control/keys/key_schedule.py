"""When keys are fetched, and which are in force: what was good stays good until something better has come.

```
wanted ──> due ──> under way ──> fetched ──20 min──> due
                       └── failed ── 1 s, 2 s, ... 1 min ──> due
```

Keys that have been fetched once count until others have come, however long that takes: an issuer that is away
for a while costs nobody anything. Keys of nobody's any more are forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Final, Protocol

from ztunnel.control.keys.key_source import KeySource
from ztunnel.l7.jwt.jwks import KeySet

REFRESH_SECONDS: Final = 20 * 60.0
"""istiod: PILOT_JWT_PUB_KEY_REFRESH_INTERVAL."""
RETRY_SECONDS: Final = (1.0, 60.0)
ASKED_SECONDS: Final = 60.0
"""Between two times that keys are fetched early, because tokens are by keys that are not among them."""
_JITTER: Final = 0.1


class Rng(Protocol):
    """The part of `random.Random` that is needed."""

    def uniform(self, a: float, b: float, /) -> float: ...


@dataclass(slots=True)
class _Standing:
    timeout_seconds: float
    due: float
    keys: KeySet | None = None
    failures: int = 0
    reason: str = ""
    began: float = -inf
    under_way: bool = False


class KeySchedule:
    """All sources that are wanted. Times are monotonic seconds.

    Attributes:
        fetched, failed: how often that was so.
    """

    def __init__(self, rng: Rng, refresh_seconds: float = REFRESH_SECONDS) -> None:
        """`refresh_seconds`: about so long after they have come keys are fetched anew."""
        self._rng = rng
        self._refresh_seconds = refresh_seconds
        self._sources: dict[KeySource, _Standing] = {}
        self.fetched = 0
        self.failed = 0

    def want(self, sources: Mapping[KeySource, float], now: float) -> None:
        """From now on these are wanted, with the seconds that each may take; a new one is due at once."""
        for gone in self._sources.keys() - sources.keys():
            del self._sources[gone]
        for source, seconds in sources.items():
            standing = self._sources.setdefault(source, _Standing(seconds, now))
            standing.timeout_seconds = seconds

    def take_due(self, now: float) -> dict[KeySource, float]:
        """Those that are to be fetched now, with the seconds that each may take: they are under way then."""
        found = {}
        for source, standing in self._sources.items():
            if not standing.under_way and standing.due <= now:
                standing.under_way, standing.began = True, now
                found[source] = standing.timeout_seconds
        return found

    @property
    def next_at(self) -> float:
        """When the next one is due; infinity for never."""
        return min((one.due for one in self._sources.values() if not one.under_way), default=inf)

    def succeed(self, source: KeySource, keys: KeySet, now: float) -> bool:
        """Keys have come; whether they are others than before."""
        standing = self._sources.get(source)
        if standing is None:
            return False
        self.fetched += 1
        changed = standing.keys is None or standing.keys.digest != keys.digest
        standing.keys, standing.failures, standing.reason, standing.under_way = keys, 0, "", False
        standing.due = now + self._about(self._refresh_seconds)
        return changed

    def fail(self, source: KeySource, reason: str, now: float) -> None:
        """They could not be had."""
        standing = self._sources.get(source)
        if standing is None:
            return
        self.failed += 1
        least, most = RETRY_SECONDS
        standing.due = now + self._about(min(most, least * 2.0 ** min(standing.failures, 10)))
        standing.failures += 1
        standing.reason, standing.under_way = reason, False

    def ask(self, source: KeySource, now: float) -> bool:
        """A token is by a key that is not there: fetch them early, once a minute at most. Whether they are
        due sooner now."""
        standing = self._sources.get(source)
        if standing is None or standing.failures or standing.under_way:
            return False
        due = max(now, standing.began + min(ASKED_SECONDS, self._refresh_seconds))
        sooner = due < standing.due
        standing.due = min(due, standing.due)
        return sooner

    def text(self, source: KeySource) -> str:
        """The keys in force, as they are served; empty where there are none."""
        standing = self._sources.get(source)
        return standing.keys.text if standing is not None and standing.keys is not None else ""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the operator should know: keys that cannot be had, and those among them of no use."""
        found = []
        for source, standing in sorted(self._sources.items(), key=lambda item: item[0]):
            if standing.reason:
                what = "the last ones stay in force" if standing.keys else "until then no token is valid"
                found.append(f"{source.url}: keys cannot be fetched: {standing.reason}; {what}")
            elif standing.keys is not None:
                found += [f"{source.url}: {text}" for text in standing.keys.remarks]
        return tuple(found)

    @property
    def missing(self) -> int:
        """Sources without keys."""
        return sum(one.keys is None for one in self._sources.values())

    def __len__(self) -> int:
        return len(self._sources)

    def _about(self, seconds: float) -> float:
        return seconds * self._rng.uniform(1 - _JITTER, 1 + _JITTER)
