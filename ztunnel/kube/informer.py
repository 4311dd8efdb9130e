"""What is known of the objects of one resource, as lists and watches tell it; sans I/O.

    listing --last page--> watching --the stream ends, fails, stands still--> watching again from where it was
       ^  ^                    |
       |  '--expired (410)-----'        absent: the resource is not installed; asked for again, slowly
       '---- the resource is installed

The first list is a consistent read: a stale one, from a cache that lags behind, could bring back a policy
that has been removed. Later ones are of the last known version or newer
(`resourceVersionMatch=NotOlderThan`), which a cache may answer; where no server has that version (etcd was
restored) the next is a consistent read again.

A list is compared with what is known: what has the same version is no change, what is missing has gone. Pages
are taken over as they come, removals with the last one. Each change is told once: events of a version that is
known say nothing (Kubernetes: API concepts, "Efficient detection of changes")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

from ztunnel.errors import PeerError
from ztunnel.kube.failure import ApiFailure
from ztunnel.kube.resource import Resource

PAGE: Final = 500
"""Objects in a page, as client-go has it."""
_WATCH_SECONDS: Final = (300, 600)
"""How long the server is asked to keep a watch (client-go: five to ten minutes)."""
_FIRST_DELAY: Final = 0.5
_MOST_DELAY: Final = 30.0
_ABSENT_DELAY: Final = 10.0
_SHORT_WATCH_SECONDS: Final = 1.0
"""A watch that brought nothing and ended sooner counts as failed (client-go)."""
_PATIENCE: Final = 3
"""Answers "too large resource version" in a row until the version is given up; and lists that expired on the
way until one is asked for without pages."""
RESYNC_SECONDS: Final = 3600.0
"""After that long everything is listed again: what a stream has lost does not stay wrong for ever."""

Name = tuple[str, str]
"""Namespace (empty where the resource has none) and name."""


class Upsert(NamedTuple):
    """An object that is new or has changed, as it came."""

    name: Name
    value: Mapping[str, Any]


class Removal(NamedTuple):
    """An object that is gone."""

    name: Name


Change = Upsert | Removal


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list. `remains` continues it, and is empty on the last one."""

    items: Sequence[Mapping[str, Any]]
    version: str
    remains: str = ""


@dataclass(frozen=True, slots=True)
class List:
    """Ask for a page with these parameters."""

    params: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Watch:
    """Open a watch with these parameters; it ends after `seconds` by itself."""

    params: Mapping[str, str]
    seconds: int


class Rng(Protocol):
    """The part of `random.Random` that is needed."""

    def uniform(self, a: float, b: float) -> float: ...

    def randint(self, a: int, b: int) -> int: ...


class _State(Enum):
    LISTING = "listing"
    WATCHING = "watching"
    ABSENT = "absent"


class Informer:
    """One resource. Ask for `request`, wait for `delay` seconds, carry it out, and tell how it went.

    Attributes:
        resource: as it is asked for now; one of those that were given.
        delay: seconds to wait before the next request.
        synced: whether all that there is has been told once.
        trouble: why it is not up to date at the moment; empty where it is.
    """

    def __init__(
        self,
        candidates: Sequence[Resource],
        rng: Rng,
        selectors: Mapping[str, str] | None = None,
        page: int = PAGE,
        namespace: str = "",
    ) -> None:
        """`candidates`: the same resource in the versions that are understood, the best first. `selectors`:
        parameters of every request (`labelSelector`, `fieldSelector`). `namespace`: the only one whose
        objects are asked for; empty for all."""
        self.namespace = namespace
        self._candidates = list(candidates)
        self._rng = rng
        self._selectors = dict(selectors or {})
        self._page = page
        self._known: dict[Name, str] = {}
        self._seen: set[Name] = set()
        self._state = _State.LISTING
        self._version = ""
        self._remains = ""
        self._consistent = True
        self._paged = True
        self._failures = 0
        self._ahead = 0
        self._restarts = 0
        self._other_versions = 0
        self._brought = False
        self._listed_at = float("-inf")
        self.delay = 0.0
        self.synced = False
        self.trouble = ""

    @property
    def resource(self) -> Resource:
        """The version of it that is asked for."""
        return self._candidates[0]

    @property
    def count(self) -> int:
        """How many objects are known."""
        return len(self._known)

    @property
    def installed(self) -> bool:
        """Whether the API server has the resource."""
        return self._state is not _State.ABSENT

    def request(self, now: float) -> List | Watch:
        """What to ask for next."""
        if self._state is _State.WATCHING and now - self._listed_at < RESYNC_SECONDS:
            seconds = self._rng.randint(*_WATCH_SECONDS)
            self._brought = False
            params = {
                "watch": "true",
                "allowWatchBookmarks": "true",
                "resourceVersion": self._version,
                "timeoutSeconds": str(seconds),
            }
            return Watch(self._selectors | params, seconds)
        if self._state is not _State.ABSENT:
            self._state = _State.LISTING
        params = {"limit": str(self._page)} if self._paged else {}
        if self._remains:
            return List(self._selectors | params | {"continue": self._remains})
        self._seen.clear()
        if self._version and not self._consistent:
            params |= {"resourceVersion": self._version, "resourceVersionMatch": "NotOlderThan"}
        return List(self._selectors | params)

    def listed(self, page: Page, now: float) -> list[Change]:
        """Take over a page: what it changes."""
        changes: list[Change] = []
        for item in page.items:
            name, version = _identity(item)
            self._seen.add(name)
            if self._known.get(name) != version:
                self._known[name] = version
                changes.append(Upsert(name, item))
        self._succeeded()
        self._remains = page.remains
        if page.remains:
            self._state = _State.LISTING
            return changes
        changes += [self._forget(name) for name in sorted(self._known.keys() - self._seen)]
        self._seen.clear()
        self._state, self._version = _State.WATCHING, page.version
        self._consistent, self._paged, self._listed_at = False, True, now
        self._restarts = 0
        self.synced = True
        return changes

    def opened(self) -> None:
        """A watch was accepted. That it brings nothing but an error is still possible."""
        self.trouble = ""

    def received(self, event: Mapping[str, Any]) -> Change | None:
        """Take over an event of a watch, other than ERROR: what it changes, if anything.

        Raises:
            PeerError: it is no event.
        """
        kind, value = event.get("type"), event.get("object")
        if kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK") or not isinstance(value, dict):
            raise PeerError(f"an event of the type {str(kind)[:80]!r}")
        if kind == "BOOKMARK":
            self._version = _meta(value).get("resourceVersion") or self._version
            self._brought = True
            return None
        name, version = _identity(value)
        self._version, self._brought, self._failures, self._ahead = version, True, 0, 0
        if kind == "DELETED":
            return self._forget(name) if name in self._known else None
        if self._known.get(name) == version:
            return None
        self._known[name] = version
        return Upsert(name, value)

    def ended(self, seconds: float) -> None:
        """A watch ended without an error after `seconds`, by itself or because it stood still."""
        if self._brought or seconds >= _SHORT_WATCH_SECONDS:
            self._succeeded()
        else:
            self._back_off("the API server ends watches at once", None)

    def failed(self, failure: ApiFailure) -> None:
        """The request, or the stream, failed."""
        self._ahead = self._ahead + 1 if failure.ahead else 0
        repeated = self._failures > 0
        self._back_off(str(failure), failure.retry_seconds)
        if failure.expired and self._state is _State.WATCHING:
            self._state, self._remains = _State.LISTING, ""
            self.delay = self.delay if repeated else 0.0
        elif self._remains:
            # A continuation that is no longer kept, or not known to the server that answers now.
            if failure.expired or failure.code == 400:
                self._restarts += 1
                self._remains, self._paged = "", self._restarts < _PATIENCE
                self.delay = self.delay if repeated else 0.0
        elif self._state is _State.LISTING and (failure.expired or failure.code == 400 or failure.ahead):
            self._consistent = True
        elif self._ahead >= _PATIENCE:
            self._state, self._consistent = _State.LISTING, True

    def absent(self) -> list[Change]:
        """The API server does not have the resource, for certain: its objects are gone."""
        changes: list[Change] = [self._forget(name) for name in sorted(self._known)]
        self._state, self._remains, self._version = _State.ABSENT, "", ""
        self._consistent, self.synced, self.trouble, self._failures = True, True, "", 0
        self.delay = _ABSENT_DELAY * self._rng.uniform(0.75, 1.25)
        return changes

    def try_other_version(self) -> None:
        """The API server has the resource, and not in this version."""
        self._candidates.append(self._candidates.pop(0))
        self._state, self._remains = _State.LISTING, ""
        self._other_versions += 1
        if self._other_versions % len(self._candidates) == 0:
            self._back_off(f"{self.resource} is served in no version that is understood here", None)
        else:
            self.delay = 0.0

    def _forget(self, name: Name) -> Removal:
        del self._known[name]
        return Removal(name)

    def _succeeded(self) -> None:
        self._failures, self._ahead, self.delay, self.trouble = 0, 0, 0.0, ""

    def _back_off(self, trouble: str, retry_seconds: float | None) -> None:
        """Twice as long each time, at most half a minute, with jitter, so that not all come back at once."""
        delay = min(_FIRST_DELAY * 2 ** min(self._failures, 16), _MOST_DELAY) * self._rng.uniform(0.5, 1.0)
        self._failures += 1
        self.delay = max(delay, retry_seconds or 0.0)
        self.trouble = trouble


def _identity(value: object) -> tuple[Name, str]:
    meta = _meta(value)
    name, version = meta.get("name"), meta.get("resourceVersion")
    if not isinstance(name, str) or not name or not isinstance(version, str):
        raise PeerError("an object without a name or version")
    return (str(meta.get("namespace") or ""), name), version


def _meta(value: object) -> Mapping[str, Any]:
    meta = value.get("metadata") if isinstance(value, dict) else None
    if not isinstance(meta, dict):
        raise PeerError("an object without metadata")
    return meta
