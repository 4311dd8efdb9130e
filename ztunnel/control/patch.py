"""Writes conditions into the status of objects, and last good versions where they are kept. Only one
replica does, and none beside an istiod, which writes the same ones; what somebody else has written is left
alone unless it is to be adopted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Final

import trio

from ztunnel.control.collection import Collection
from ztunnel.control.conditions import MANAGER, addresses_of, merge
from ztunnel.control.document import Key
from ztunnel.control.recall import LastGood
from ztunnel.control.served import SERVED
from ztunnel.control.settings import MeshSettings
from ztunnel.kube.call import MERGE, Api
from ztunnel.kube.failure import ApiFailure, Request

_BETWEEN_SECONDS: Final = 0.05
"""Between two writes: twenty a second, so that a thousand policies do not become a burst."""
_RETRY_SECONDS: Final = 5.0
_OUR_OWN: Final = ("Gateway", "GatewayClass")
"""Of these only those of our class are seen to: an istiod has nothing to do with them."""
_RESOURCES: Final = {served.kind: served.candidates[0] for served in SERVED}


class StatusWriter:
    """Keeps statuses as they should be, while `run` runs.

    Attributes:
        memory: where last good versions are kept over restarts; nowhere at first.
        trouble: why the last one could not be written; empty where it could.
        written: by kind and outcome (`written`, `failed`).
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
        self._woken = trio.Event()
        self.memory: LastGood | None = None
        self.trouble = ""
        self.written: Counter[tuple[str, str]] = Counter()

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
            if unsettled:
                await self._settle(min(unsettled))
            else:
                await self._woken.wait()
                self._woken = trio.Event()

    async def _settle(self, key: Key) -> None:
        """See to one object. What fails and may pass is tried again."""
        self._collection.unsettled.discard(key)
        standing = self._collection.standings.get(key)
        if standing is None or (standing.foreign and not self._adopt):
            return
        stamp = self._wall().strftime("%Y-%m-%dT%H:%M:%SZ")
        conditions = merge(standing, self._collection.conditions(key, self._settings), stamp)
        if conditions is None:
            return
        request = Request("patch", _RESOURCES[key.kind], key.namespace, key.name, "status")
        status: dict[str, object] = {"conditions": conditions}
        if (addresses := addresses_of(self._collection.said(key))) is not None:
            status["addresses"] = addresses
        value = {"metadata": {"resourceVersion": standing.version}, "status": status}
        try:
            await self._api.patch(request, value, MERGE, {"fieldManager": MANAGER})
        except ApiFailure as failure:
            await self._failed(key, failure)
        else:
            self.trouble = ""
            self.written[key.kind, "written"] += 1
            await trio.sleep(_BETWEEN_SECONDS)

    async def _failed(self, key: Key, failure: ApiFailure) -> None:
        if failure.code in (404, 409):  # gone, or another version of it is on its way to us
            return
        self.written[key.kind, "failed"] += 1
        self.trouble = str(failure)
        self._collection.unsettled.add(key)
        await trio.sleep(max(failure.retry_seconds or 0.0, _RETRY_SECONDS))
