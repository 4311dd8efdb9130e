"""Says when to look again for the namespaces of pods: at once when one gets its name that is waited for, a
moment later when another one is mounted or unmounted (a pod may have been restarted under its name), else
now and then."""

from __future__ import annotations

from collections.abc import Callable

from ztunnel.flow.engine import Engine
from ztunnel.kernel.mounts import MOUNTED, MountEvents

LOOK_AGAIN_SECONDS = 2.0
FIRST_AGAIN_SECONDS = 0.05
TRY_AGAIN_SECONDS = 0.25
"""While a pod is pending: maybe its addresses are just being set, and it is not in the mesh yet."""


MOUNTS_SECONDS = 0.1
"""After a mount that nobody waits for: where containers come and go, there are many."""


class Arrivals:
    """Namespaces that come and go. Where mounts cannot be watched, they are found by looking now and then."""

    def __init__(self, engine: Engine, stirred: Callable[[], None]) -> None:
        """`stirred` is called when something was mounted or unmounted."""
        self._engine = engine
        self._stirred = stirred
        self._mounts: MountEvents | None = None
        self._tries = 0
        self._pending = False
        self._soon = False

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
        elif not self._soon:
            self._soon = True
            self._engine.after(MOUNTS_SECONDS, self._look)

    def _look(self) -> None:
        self._soon = False
        if self._mounts is not None:
            self._stirred()
