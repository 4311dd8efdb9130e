"""Carries out what an informer asks for: one resource is listed, and watched from there on, until
cancelled."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Final

import trio

from ztunnel.errors import PeerError
from ztunnel.kube.call import Api
from ztunnel.kube.failure import ApiFailure, Request, failure_in_stream
from ztunnel.kube.informer import Change, Informer, List, Page, Watch
from ztunnel.kube.lines import Lines
from ztunnel.kube.resource import CRDS

STALL_SECONDS: Final = 150.0
"""A watch that brings nothing for so long is taken up again from where it was: the API server sends a
bookmark every minute, and a connection that a NAT has forgotten says nothing for ever."""
_LATE_SECONDS: Final = 30.0
"""After its time the server ends a watch by itself; so much later we do."""
_LIST_SECONDS: Final = 120.0
_OPEN_SECONDS: Final = 30.0
"""An API server accepts a watch, or refuses it, at once; only what it then tells takes its time."""

Take = Callable[[Sequence[Change]], None]


class Watcher:
    """One resource of one API server."""

    def __init__(
        self,
        api: Api,
        informer: Informer,
        take: Take,
        tell: Callable[[], None] = lambda: None,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        """`take` gets what changes, in order; `tell` is called when the informer has come to know more: it is
        synced, is in trouble, or out of it, or whether the resource is installed. Both are called in this
        task, and must not wait."""
        self._api = api
        self.informer = informer
        self._take = take
        self._tell = tell
        self._stall_seconds = stall_seconds
        self._told = (False, "", True)
        self.failures = 0
        """How many requests have failed."""

    async def run(self) -> None:
        """List and watch until cancelled."""
        while True:
            self._say()
            await trio.sleep(self.informer.delay)
            wanted = self.informer.request(trio.current_time())
            try:
                if isinstance(wanted, List):
                    await self._list(wanted)
                else:
                    await self._watch(wanted)
            except ApiFailure as failure:
                self.failures += 1
                await self._failed(failure)
            except (PeerError, ValueError, RecursionError) as error:
                self.failures += 1
                text = f"the API server's answer makes no sense ({self._request('watch')}): {error}"
                self.informer.failed(ApiFailure(text))

    async def _list(self, wanted: List) -> None:
        request = self._request("list")
        with trio.move_on_after(_LIST_SECONDS) as scope:
            value = await self._api.list(request.resource, request.namespace, wanted.params)
        if scope.cancelled_caught:
            raise ApiFailure(f"no answer from {self._api.server} in {_LIST_SECONDS:.0f} s ({request})")
        meta = value.get("metadata") or {}
        page = Page(value.get("items") or (), meta.get("resourceVersion") or "", meta.get("continue") or "")
        self._deliver(self.informer.listed(page, trio.current_time()))

    async def _watch(self, wanted: Watch) -> None:
        request = self._request("watch")
        begun, lines, is_open = trio.current_time(), Lines(), False
        broken: list[Exception] = []

        def opened() -> None:
            nonlocal is_open
            is_open, stall.deadline = True, trio.current_time() + self._stall_seconds
            self.informer.opened()
            self._say()

        def feed(chunk: bytes) -> None:
            stall.deadline = trio.current_time() + self._stall_seconds
            if broken:
                return
            try:
                for line in lines.feed(chunk):
                    self._event(request, line)
            except (ApiFailure, PeerError, ValueError, RecursionError) as error:
                broken.append(error)
                stall.cancel()

        with (
            trio.move_on_after(wanted.seconds + _LATE_SECONDS),
            trio.move_on_after(_OPEN_SECONDS) as stall,
        ):
            await self._api.watch(request, wanted.params, opened, feed)
        if broken:
            raise broken[0]
        if not is_open:
            raise ApiFailure(f"no answer from {self._api.server} in {_OPEN_SECONDS:.0f} s ({request})")
        self.informer.ended(trio.current_time() - begun)

    def _event(self, request: Request, line: bytes) -> None:
        event = json.loads(line)
        if not isinstance(event, dict):
            raise PeerError("an event that is no object")
        if event.get("type") == "ERROR":
            raise failure_in_stream(request, event.get("object") or {})
        change = self.informer.received(event)
        if change is not None:
            self._deliver([change])

    async def _failed(self, failure: ApiFailure) -> None:
        """A resource that is not there is absent only where its definition is not, or cannot be looked at and
        nothing was known of it: an API server that starts answers 404 for a while."""
        resource = self.informer.resource
        if failure.code != 404 or not resource.custom:
            self.informer.failed(failure)
            return
        try:
            await self._api.get(CRDS, f"{resource.plural}.{resource.group}")
        except ApiFailure as looked:
            if looked.code == 404 or (looked.code == 403 and not self.informer.count):
                self._deliver(self.informer.absent())
            else:
                self.informer.failed(looked)
        else:
            self.informer.try_other_version()

    def _request(self, verb: str) -> Request:
        return Request(verb, self.informer.resource, self.informer.namespace)

    def _deliver(self, changes: Sequence[Change]) -> None:
        if changes:
            self._take(changes)

    def _say(self) -> None:
        told = self.informer.synced, self.informer.trouble, self.informer.installed
        if told != self._told:
            self._told = told
            self._tell()
