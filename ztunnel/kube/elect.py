"""Has one of several replicas do what only one may do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from random import Random

import trio

from ztunnel.drain import closing
from ztunnel.kube.call import Api, Value
from ztunnel.kube.failure import ApiFailure
from ztunnel.kube.lease import RETRY_SECONDS, Candidate
from ztunnel.kube.resource import LEASES

_GOODBYE_SECONDS = 2.0


class Election:
    """One replica's part in it.

    Attributes:
        candidate: whether it leads.
        trouble: why the lease could not be read or written the last time; empty where it could.
        tell: called with the trouble whenever it is another one; nobody at first.
    """

    def __init__(
        self, api: Api, namespace: str, candidate: Candidate, wall: Callable[[], datetime], rng: Random
    ) -> None:
        self._api = api
        self._namespace = namespace
        self.candidate = candidate
        self._wall = wall
        self._rng = rng
        self._lease: Value | None = None
        self.tell: Callable[[str], None] = lambda _: None
        self.trouble = ""

    async def run(self, name: str, lead: Callable[[], Awaitable[None]]) -> None:
        """Until cancelled: have `lead` run while this replica leads. It is cancelled when it does no longer;
        where it returns, the lease is kept all the same. Cancelled, the lease is given to another one."""
        try:
            while True:
                await self._try(name)
                if self.candidate.leads(trio.current_time()):
                    await self._lead(name, lead)
                await self._pause()
        finally:
            with closing(_GOODBYE_SECONDS):
                await self._release()

    async def _lead(self, name: str, lead: Callable[[], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lead)
            while self.candidate.leads(trio.current_time()):
                with trio.move_on_at(self.candidate.leads_until):
                    await self._pause()
                    await self._try(name)
            nursery.cancel_scope.cancel()

    async def _pause(self) -> None:
        await trio.sleep(RETRY_SECONDS * self._rng.uniform(1.0, 1.2))

    async def _try(self, name: str) -> None:
        """Look at the lease once, and write it where it is ours to write."""
        begun = trio.current_time()
        try:
            lease: Value | None = await self._api.get(LEASES, name, self._namespace)
        except ApiFailure as failure:
            if failure.code != 404:
                self._say(str(failure))
                return
            lease = None
        made = self.candidate.next(lease, trio.current_time(), self._wall())
        if made is None:
            self._say("")
            return
        try:
            if lease is None:
                self._lease = await self._api.create(LEASES, made, self._namespace)
            else:
                self._lease = await self._api.update(LEASES, made)
            self.candidate.wrote(begun)
        except ApiFailure as failure:
            self._say("" if failure.code == 409 else str(failure))  # 409: another one was quicker
        else:
            self._say("")

    async def _release(self) -> None:
        if not self.candidate.leads(trio.current_time()) or self._lease is None:
            return
        made = self.candidate.released(self._lease, self._wall())
        try:
            if made is not None:
                await self._api.update(LEASES, made)
        except ApiFailure as failure:
            self._say(str(failure))

    def _say(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self.tell(trouble)
