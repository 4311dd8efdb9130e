"""Says when to look again for pods that are waited for: at once when a namespace gets its name, else soon."""

from __future__ import annotations

from collections.abc import Callable

from ztunnel.flow.engine import Engine
from ztunnel.kernel.mounts import MOUNTED, MountEvents

LOOK_AGAIN_SECONDS = 2.0
FIRST_AGAIN_SECONDS = 0.05
TRY_AGAIN_SECONDS = 0.25
"""While a pod is pending: maybe its addresses are just being set, and it is not in the mesh yet."""


class Arrivals:
    """Namespaces that come. Where mounts cannot be watched, they are found by looking now and then."""

    def __init__(self, engine: Engine, stirred: Callable[[], None]) -> None:
        """`stirred` is called when something was mounted while a pod was pending."""
        self._engine = engine
        self._stirred = stirred
        self._mounts: MountEvents | None = None
        self._tries = 0
        self._pending = False

    def open(self) -> None:
        """Watch from now on."""
        try:
            self._mounts = mounts = MountEvents()
        except OSError:
            return
        self._engine.watch(mounts.fileno(), MOUNTED, self._mounted, lambda bug: None)

    def close(self) -> None:
        """Watch no more."""
        mounts, self._mounts = self._mounts, None
        if mounts is not None:
            self._engine.unwatch(mounts.fileno())
            mounts.close()

    def pause(self, pending: bool) -> float:
        """How long to wait until the next look. A pod that has just come is tried again soon."""
        self._pending = pending
        self._tries = self._tries + 1 if pending else 0
        return min(TRY_AGAIN_SECONDS, FIRST_AGAIN_SECONDS * self._tries) if pending else LOOK_AGAIN_SECONDS

    def _mounted(self, mask: int) -> None:
        if self._pending:
            self._tries = 0
            self._stirred()
