"""Writes conditions into the status of objects, and last good versions where they are kept. Only one
replica does, and none beside an istiod, which writes the same ones; what somebody else has written is left
alone unless it is to be adopted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Final

import trio

from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.collection import Collection
from ztunnel.control.source.document import Key
from ztunnel.control.source.recall import LastGood
from ztunnel.control.status.standing import MANAGER
from ztunnel.kube.call import MERGE, Api
from ztunnel.kube.failure import ApiFailure, Request
from ztunnel.telemetry.figures import Figures

_BETWEEN_SECONDS: Final = 0.05
"""Between two writes: twenty a second, so that a thousand policies do not become a burst."""
_RETRY_SECONDS: Final = 5.0
"""Until the API server is asked again that does not answer, or asks for patience ..."""
_REFUSED_SECONDS: Final = 60.0
"""... and until it is asked again about an object whose status it refused; others have theirs."""
_REFUSED: Final = (400, 403, 413, 422)
"""Not the server's state, but this request: invalid, not allowed, too large."""
_OUR_OWN: Final = ("Gateway", "GatewayClass")
"""Of these only those of our class are seen to: an istiod has nothing to do with them."""


class StatusWriter:
    """Keeps statuses as they should be, while `run` runs.

    Attributes:
        memory: where last good versions are kept over restarts; nowhere at first.
        trouble: why the first of those that could not be written could not; empty where all could.
        written: by kind and outcome (`written`, `failed`).
        tell: called with the trouble whenever it is another one; nobody at first.
    """

    def __init__(
        self,
        api: Api,
        collection: Collection,
        settings: MeshSettings,
        wall: Callable[[], datetime],
        *,
        adopt: bool = False,
    ) -> None:
        self._api = api
        self._collection = collection
        self._settings = settings
        self._wall = wall
        self._adopt = adopt
        self.tell: Callable[[str], None] = lambda _: None
        self._woken = trio.Event()
        self._failing: dict[Key, tuple[float, str]] = {}
        self.memory: LastGood | None = None
        self.trouble = ""
        self.written: Counter[tuple[str, str]] = Counter()

    def register(self, figures: Figures) -> None:
        """Bring the figures to the register."""
        figures.counter(
            "ztunnel_control_status_writes_total",
            "Statuses that were written, or could not be",
            lambda: list(self.written.items()),
            ["kind", "outcome"],
        )

    def wake(self) -> None:
        """There may be something to write."""
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled. Begins with everything: who wrote before may have been somebody else."""
        unsettled = self._collection.unsettled
        unsettled.update(self._collection.standings)
        while True:
            if self.memory is not None:
                await self.memory.remember(self._collection.last_good())
            if self._collection.istiod is not None and not self._adopt:
                unsettled.intersection_update(key for key in list(unsettled) if key.kind in _OUR_OWN)
            now = trio.current_time()
            due = [key for key in unsettled if key not in self._failing or self._failing[key][0] <= now]
            if due:
                for key in sorted(due):
                    if key in unsettled:
                        await self._settle(key)
                    await trio.lowlevel.checkpoint()  # nothing is to be written about most of them
            else:
                again_at = min((self._failing[key][0] for key in unsettled), default=math.inf)
                with trio.move_on_at(again_at):
                    await self._woken.wait()
                    self._woken = trio.Event()

    async def _settle(self, key: Key) -> None:
        """See to one object. What fails and may pass is tried again."""
        self._collection.unsettled.discard(key)
        await self._write(key)
        if key not in self._collection.unsettled:
            self._failing.pop(key, None)
        trouble = next((f"{key}: {self._failing[key][1]}" for key in sorted(self._failing)), "")
        if trouble != self.trouble:
            self.trouble = trouble
            self.tell(trouble)

    async def _write(self, key: Key) -> None:
        standing = self._collection.standings.get(key)
        if standing is None or (standing.foreign and not self._adopt):
            return
        stamp = self._wall().strftime("%Y-%m-%dT%H:%M:%SZ")
        status = self._collection.status(key, self._settings, stamp)
        if status is None:
            return
        resource = self._collection.resources[key.kind]
        request = Request("patch", resource, key.namespace, key.name, "status")
        value = {"metadata": {"resourceVersion": standing.version}, "status": status}
        try:
            await self._api.patch(request, value, MERGE, {"fieldManager": MANAGER})
        except ApiFailure as failure:
            await self._failed(key, failure)
        else:
            self.written[key.kind, "written"] += 1
            await trio.sleep(_BETWEEN_SECONDS)

    async def _failed(self, key: Key, failure: ApiFailure) -> None:
        if failure.code in (404, 409):  # gone, or another version of it is on its way to us
            return
        self.written[key.kind, "failed"] += 1
        self._collection.unsettled.add(key)
        retry = failure.retry_seconds or 0.0
        if failure.code in _REFUSED:
            self._failing[key] = trio.current_time() + max(retry, _REFUSED_SECONDS), str(failure)
            await trio.sleep(_BETWEEN_SECONDS)
        else:
            self._failing[key] = trio.current_time(), str(failure)
            await trio.sleep(max(retry, _RETRY_SECONDS))
