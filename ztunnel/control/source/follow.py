"""Follows the objects of a cluster in the Kubernetes API, and publishes what they say.

Nothing is published before every kind that is installed has been listed once: a world that is half there
would let through, or refuse, what the whole one does not. After that a change is in force as soon as
nothing else has come for a moment, and while changes come without end, four times a second. Where the API
server is away or refuses, what is known goes on counting; `troubles` says what is wrong until it is over."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Final

import trio

from ztunnel.control.index import Index
from ztunnel.control.keys.fetch_keys import Keys
from ztunnel.control.keys.key_source import KeySource
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.change import Change
from ztunnel.control.source.collection import Collection, mesh_of, served_of
from ztunnel.control.source.inventory import Inventory
from ztunnel.control.source.recall import LastGood
from ztunnel.control.source.served import SERVED, Served, mesh_config
from ztunnel.control.source.watch_secrets import SecretWatch
from ztunnel.control.translation import Translator
from ztunnel.control.waypoints.waypoint import Waypoints
from ztunnel.errors import Fault
from ztunnel.kube import informer
from ztunnel.kube.call import Api
from ztunnel.kube.informer import Informer
from ztunnel.kube.watch import Watcher
from ztunnel.telemetry.figures import Figures
from ztunnel.xds.snapshot import Snapshot, advance

QUIET_SECONDS: Final = 0.1
"""A change waits for others until none has come for so long (istiod: PILOT_DEBOUNCE_AFTER) ..."""
LONGEST_SECONDS: Final = 0.25
"""... but no longer than this (istiod: PILOT_DEBOUNCE_MAX, ten seconds)."""


def _ignore() -> None:
    """The default observer."""


class ClusterWatch:
    """One cluster. `publish` gets each new snapshot.

    Attributes:
        loaded: whether there has been a state yet.
        faults: what is wrong with objects now, sorted; each names the object and the field.
        warnings: what the operator should know about the state in force.
        troubles: why kinds are not up to date, one line for each that is not.
        absent: the kinds that the API server does not have; they are waited for.
        collection: the objects as the API has them.
        inventory: the objects in force.
        change: what the last taking over changed.
        unsettled: called whenever the status of objects may be due to be written; nobody at first.
        memory: where last good versions are kept over restarts; nowhere at first.
        keys: those of issuers; nobody fetches them at first.
    """

    def __init__(
        self,
        api: Api,
        settings: MeshSettings,
        publish: Callable[[Snapshot], None],
        observe: Callable[[], None] = _ignore,
        rng: Random | None = None,
    ) -> None:
        """`publish` and `observe` are called in this task, `observe` whenever changes were taken over, or
        faults, warnings or troubles are others."""
        self._api = api
        self._settings = settings
        self._publish = publish
        self._observe = observe
        self.unsettled: Callable[[], None] = _ignore
        self.memory: LastGood | None = None
        self._events: Counter[tuple[str, str]] = Counter()
        self.collection = Collection(lambda kind, event: self._events.update([(kind, event)]))
        self.keys = Keys()
        self._translator = Translator(settings, lambda source: self.keys.text(source))
        self.collection.said = self._translator.said
        self.collection.served = lambda: self._translator.waypoints.served
        self.collection.mesh = self._translator.mesh.last_good
        self._snapshot = Snapshot()
        self._woken = trio.Event()
        self._changed_at = 0.0
        self._first_change_at = math.inf
        chance = rng or Random()
        self._watchers = [self._watcher(served, chance) for served in SERVED]
        self._secrets = SecretWatch(api, chance, self._take, self._wake)
        self._translator.credentials.trouble = self._secrets.trouble
        config, namespace = mesh_config(settings)
        self._watchers.append(self._watcher(config, chance, namespace))
        self.inventory = Inventory()
        self.change = Change()
        self.loaded = False
        self.faults: tuple[Fault, ...] = ()
        self.warnings: tuple[str, ...] = ()
        self.troubles: tuple[str, ...] = ()
        self.absent: tuple[str, ...] = ()

    def _watcher(self, served: Served, rng: Random, namespace: str = "") -> Watcher:
        source = Informer(served.candidates, rng, served.selectors, namespace=namespace)

        def take(changes: Sequence[informer.Change]) -> None:
            self.collection.resources[served.kind] = source.resource
            self._take(served, changes)

        return Watcher(self._api, source, take, self._wake)

    def _take(self, served: Served, changes: Sequence[informer.Change]) -> None:
        faults = self.collection.faults
        self.collection.take(served, changes)
        if self.collection.unsettled or self.collection.faults is not faults:
            self.unsettled()
        self._changed_at = trio.current_time()
        if self.collection.changed:
            self._first_change_at = min(self._first_change_at, self._changed_at)
        self._wake()

    def _wake(self) -> None:
        self._woken.set()

    @property
    def pods(self) -> Index:
        """The pods by name and by node, as they are now."""
        return self._translator.index

    @property
    def waypoints(self) -> Waypoints:
        """The Gateways, as they are now."""
        return self._translator.waypoints

    @property
    def missing(self) -> tuple[str, ...]:
        """The kinds that have not been listed yet; nothing is published before there are none."""
        return tuple(one.resource.kind for one in self._informers if not one.synced)

    @property
    def _informers(self) -> list[Informer]:
        return [watcher.informer for watcher in self._watchers]

    def register(self, figures: Figures) -> None:
        """Bring the figures to the register."""
        figures.counter(
            "ztunnel_kube_events_total", "Objects told by the Kubernetes API",
            lambda: list(self._events.items()), ["kind", "event"],
        )  # fmt: skip
        figures.counter(
            "ztunnel_kube_failures_total", "Requests to the Kubernetes API that failed",
            lambda: [((one.informer.resource.kind,), one.failures) for one in self._watchers], ["kind"],
        )  # fmt: skip
        figures.gauge(
            "ztunnel_kube_objects", "Objects known of the Kubernetes API",
            lambda: [((one.resource.kind,), one.count) for one in self._informers], ["kind"],
        )  # fmt: skip
        figures.gauge(
            "ztunnel_kube_stale", "1 where a kind is not up to date, as the API server is away or refuses",
            lambda: [((one.resource.kind,), float(bool(one.trouble))) for one in self._informers], ["kind"],
        )  # fmt: skip

        figures.gauge(
            "ztunnel_control_waypoints_not_bound",
            "Namespaces, services, pods and entries whose label names a waypoint that does not serve them",
            lambda: float(sum(1 for _ in self.waypoints.problems())),
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow until cancelled. Started when the first snapshot was published."""
        self.keys.observe = self._note_keys
        if self.memory is not None:
            kept = await self.memory.recall()
            self.collection.recall(kept)
            self._translator.waypoints.recall(served_of(kept))
            self._translator.mesh.recall(mesh_of(kept))
        async with trio.open_nursery() as nursery:
            for watcher in self._watchers:
                nursery.start_soon(watcher.run)
            nursery.start_soon(self._secrets.run)
            while True:
                await self._woken.wait()
                self._woken = trio.Event()
                self._report()
                if self.missing:
                    continue
                await self._settle()
                first = not self.loaded
                if first or self.collection.changed:
                    self._take_over()
                if not self.loaded:
                    continue  # until it is known which Secrets there are
                if self._secrets.take_changed():
                    self._renew_credentials()
                if changed := self.keys.take_changed():
                    self._renew(changed)
                if first:
                    task_status.started()

    async def _settle(self) -> None:
        """Wait until nothing has come for a moment."""
        end = trio.current_time() + LONGEST_SECONDS
        while trio.current_time() < (until := min(end, self._changed_at + QUIET_SECONDS)):  # noqa: ASYNC110
            await trio.sleep_until(until)

    def _take_over(self) -> None:
        batch = self.collection.flush()
        self.inventory = self.collection.inventory()
        delta = self._translator.update(batch.objects)
        changed_at, self._first_change_at = self._first_change_at, math.inf
        self._snapshot = advance(self._snapshot, delta.by_type(), self._settings.network, changed_at)
        self.keys.want(self._translator.jwt_policies.sources)
        self._secrets.want(self._translator.credentials.wanted)
        if not self.loaded and self._secrets.pending:
            return  # a waypoint that comes back is not to lose what it has
        self.warnings = self._translator.warnings() + self.keys.remarks
        self.change = batch.change
        self.loaded = True
        self._publish(self._snapshot)
        if unsettled := (delta.unsettled | batch.objects.keys()) & self.collection.standings.keys():
            self.collection.unsettled.update(unsettled)
            self.unsettled()
        self._observe()
        self.change = Change()

    def ask_keys(self, names: Iterable[str]) -> None:
        """Tokens name keys that RequestAuthentications of these names, `namespace/name`, do not have: see
        soon whether they are there now."""
        self.keys.ask(self._translator.jwt_policies.sources_of(names))

    def _renew(self, changed: Iterable[KeySource]) -> None:
        """Keys of issuers are others now."""
        changes = self._translator.jwt_policies.renew(changed).by_type()
        self._snapshot = advance(self._snapshot, changes, self._settings.network, trio.current_time())
        self._publish(self._snapshot)

    def _renew_credentials(self) -> None:
        """Secrets cannot be read, or can again."""
        delta = self._translator.renew_credentials()
        self._snapshot = advance(self._snapshot, delta.by_type(), self._settings.network, trio.current_time())
        self._publish(self._snapshot)
        self.warnings = self._translator.warnings() + self.keys.remarks
        if unsettled := delta.unsettled & self.collection.standings.keys():
            self.collection.unsettled.update(unsettled)
            self.unsettled()
        self._observe()

    def _note_keys(self) -> None:
        """Keys were fetched, or could not be."""
        warnings = self._translator.warnings() + self.keys.remarks
        if self.loaded and warnings != self.warnings:
            self.warnings = warnings
            self._observe()
        self._wake()

    def _report(self) -> None:
        """Say what is wrong, where that has changed."""
        troubles = tuple(f"{one.resource}: {one.trouble}" for one in self._informers if one.trouble)
        troubles += self._secrets.troubles()
        absent = tuple(str(one.resource) for one in self._informers if not one.installed)
        if (troubles, absent, self.collection.faults) != (self.troubles, self.absent, self.faults):
            self.troubles, self.absent, self.faults = troubles, absent, self.collection.faults
            self.inventory = self.collection.inventory()
            self._observe()
