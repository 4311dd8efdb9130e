"""Brings the mesh's roots into a ConfigMap of every namespace, and keeps them there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import trio

from ztunnel.ca.root_maps import OWN, SHARED, Due, RootMaps, map_value
from ztunnel.control.source.report import Log
from ztunnel.identity.standing import StandingAuthority
from ztunnel.kube.call import Api
from ztunnel.kube.failure import ApiFailure, Request
from ztunnel.kube.informer import Change, Informer, Rng, Upsert
from ztunnel.kube.resource import CONFIG_MAPS, NAMESPACES
from ztunnel.kube.watch import Watcher
from ztunnel.telemetry.figures import Figures

_AT_ONCE: Final = 10
_WRITE_SECONDS: Final = 10.0


class RootDistribution:
    """Every control plane does it: what one has written, the others find."""

    def __init__(self, api: Api, maps: RootMaps, authority: StandingAuthority, rng: Rng, log: Log) -> None:
        self._api = api
        self._maps = maps
        self._authority = authority
        self._log = log
        self._beside = False
        self._stirred = trio.Event()
        self._watchers = [
            Watcher(api, Informer([NAMESPACES], rng), self._take_namespaces, self._stir),
            *(self._map_watcher(name, rng) for name in (SHARED, OWN)),
        ]
        self.written_total = 0

    def register(self, figures: Figures) -> None:
        """Bring the figures to the register."""
        figures.counter(
            "ztunnel_root_maps_written_total",
            "ConfigMaps with the roots that were made or put right",
            lambda: self.written_total,
        )
        figures.gauge(
            "ztunnel_root_maps_missing",
            "Namespaces in which the ConfigMap with the roots is missing or another",
            lambda: self._maps.missing,
        )

    async def run(self) -> None:
        """Write what is due until cancelled."""
        self._authority.on_change(lambda _: self._stir())
        async with trio.open_nursery() as nursery:
            for watcher in self._watchers:
                nursery.start_soon(watcher.run)
            while True:
                self._stirred = trio.Event()
                if all(watcher.informer.synced for watcher in self._watchers):
                    await self._write_due()
                with trio.move_on_at(self._maps.next_at()):
                    await self._stirred.wait()

    async def _write_due(self) -> None:
        current = self._authority.current
        self._maps.roots = current.roots_pem if current is not None else ""
        if self._maps.beside_istiod != self._beside:
            self._beside = self._maps.beside_istiod
            name = OWN if self._beside else SHARED
            self._log.info(
                "the roots are in the ConfigMap of this name", name=name, beside_istiod=self._beside
            )
        due = self._maps.due(trio.current_time())
        for start in range(0, len(due), _AT_ONCE):
            async with trio.open_nursery() as writing:
                for one in due[start : start + _AT_ONCE]:
                    writing.start_soon(self._write, one)

    async def _write(self, one: Due) -> None:
        value = map_value(one, self._maps.roots)
        try:
            with trio.fail_after(_WRITE_SECONDS):
                if one.exists:
                    request = Request("patch", CONFIG_MAPS, one.namespace, one.name)
                    await self._api.patch(request, value)
                else:
                    await self._api.create(CONFIG_MAPS, value, one.namespace)
        except trio.TooSlowError:
            self._failed(one, f"no answer within {_WRITE_SECONDS:.0f} s")
        except ApiFailure as failure:
            # It is there by now, or its namespace is going: the watch says so.
            expected = (
                failure.reason == "AlreadyExists" or failure.code == 404 or "being terminated" in str(failure)
            )
            self._failed(one, "" if expected else str(failure))
        else:
            self.written_total += 1
            if not self._maps.written(one, trio.current_time()):
                self._log.error(
                    "something else keeps on writing the ConfigMap with the roots: left alone for a while",
                    namespace=one.namespace, name=one.name,
                )  # fmt: skip

    def _failed(self, one: Due, cause: str) -> None:
        news = self._maps.failed(one, cause, trio.current_time())
        if cause and news:
            self._log.warn("the roots cannot be written", namespace=one.namespace, name=one.name, error=cause)

    def _map_watcher(self, name: str, rng: Rng) -> Watcher:
        informer = Informer([CONFIG_MAPS], rng, {"fieldSelector": f"metadata.name={name}"})
        return Watcher(self._api, informer, partial(self._take_maps, name), self._stir)

    def _take_namespaces(self, changes: Sequence[Change]) -> None:
        for change in changes:
            value = change.value if isinstance(change, Upsert) else None
            self._maps.put_namespace(change.name[1], value)
        self._stir()

    def _take_maps(self, name: str, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.name[1] == name:
                value = change.value if isinstance(change, Upsert) else None
                self._maps.put_map(change.name[0], name, value)
        self._stir()

    def _stir(self) -> None:
        self._stirred.set()
