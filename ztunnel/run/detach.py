"""Which pods of a node an operator has taken out of the mesh, and which there are: two small files of the
host, so that both are known with the proxy, the control plane and the API server dead.

```
<run_dir>/<pins>.detached   {"all": false, "pods": ["shop/orders-1"]}   written by `ztunnel detach`, `attach`
<run_dir>/<pins>.pods       {"4711": "shop/orders-1"}                   written by the proxy: cookie to pod
```
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Detached:
    """All pods, or these, by `namespace/name`."""

    all: bool = False
    pods: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return self.all or bool(self.pods)

    def __contains__(self, pod: object) -> bool:
        return self.all or pod in self.pods


class Detachments:
    """The files of one installation."""

    def __init__(self, run_dir: Path, pins: Path) -> None:
        self._place = run_dir / f"{pins.name}.detached"
        self._names = run_dir / f"{pins.name}.pods"
        self._seen: tuple[int, int] | None = None
        self._read = Detached()
        self._written: Mapping[int, str] | None = None

    def read(self) -> Detached:
        """As the file says now; a microsecond where it has not changed. What cannot be read is nothing:
        only `ztunnel detach` lets a pod out of the mesh."""
        try:
            found = self._place.stat()
        except OSError:
            self._seen, self._read = None, Detached()
            return self._read
        seen = found.st_ino, found.st_mtime_ns
        if seen != self._seen:
            self._seen, self._read = seen, _parse(_load(self._place))
        return self._read

    def write(self, detached: Detached) -> None:
        """Raises OSError."""
        if not detached:
            self._place.unlink(missing_ok=True)
            return
        _store(self._place, {"all": detached.all, "pods": sorted(detached.pods)})

    def remember(self, names: Mapping[int, str]) -> None:
        """Which pods there are, by the cookies of their namespaces. Without a place for it, nothing is
        remembered."""
        if names == self._written:
            return
        with suppress(OSError):
            _store(self._names, {str(cookie): name for cookie, name in names.items()})
            self._written = dict(names)

    def remembered(self) -> dict[int, str]:
        """The pods that the proxy had last."""
        return {int(cookie): str(name) for cookie, name in _load(self._names).items() if cookie.isdecimal()}

    def forget(self) -> None:
        """The proxy leaves for good."""
        self._names.unlink(missing_ok=True)
        self._place.unlink(missing_ok=True)


def _parse(untrusted: Mapping[str, Any]) -> Detached:
    pods = untrusted.get("pods")
    names = (
        frozenset(each for each in pods if isinstance(each, str)) if isinstance(pods, list) else frozenset()
    )
    return Detached(untrusted.get("all") is True, names)


def _load(place: Path) -> dict[str, Any]:
    try:
        with place.open("rb") as file:
            found = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _store(place: Path, value: object) -> None:
    """Whole, or not at all."""
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = place.with_name(f".{place.name}.{os.getpid()}")
    beside.write_text(json.dumps(value))
    beside.rename(place)
