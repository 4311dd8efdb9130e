"""Watches a folder of manifests, and publishes what it says whenever it changes and holds still.

A change is taken over when a file looks the same twice in a row, a poll apart: whoever writes a file in
several steps, or replaces it by removing it first, is given that time. What is wrong costs only itself: its
last good version stays in force, and the faults say what is wrong until it is fixed. The last good text of
each file is kept over restarts."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trio

from ztunnel.control.delta import Translation
from ztunnel.control.keys.fetch_keys import Keys
from ztunnel.control.services.endpoint import Name
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.change import Change, difference
from ztunnel.control.source.inventory import Inventory, gather
from ztunnel.control.source.load import Files, Memory, Seen, Stamp, look, read_all, recall, remember
from ztunnel.control.translation import Translator
from ztunnel.errors import ConfigError, Fault
from ztunnel.xds.snapshot import Snapshot, advance

POLL_SECONDS: Final = 0.25
"""A change is in force after two polls at the most, and the time that it takes to read and translate it."""
_SLOWEST_SECONDS: Final = 0.4
"""Between looks at a folder of thousands of files, each of which costs some 4 us."""
_RESTLESS_POLLS: Final = 40
"""A file that has not held still for so long (10 s at the least) is a fault."""


def _ignore() -> None:
    """The default observer."""


class FolderWatch:
    """One folder. After each poll its attributes say how things stand; `publish` gets each new snapshot.

    Attributes:
        loaded: whether there has been a state yet.
        faults: what is wrong now, sorted.
        warnings: what the operator should know about the state in force.
        inventory: the objects in force.
        translation: what they mean to node proxies.
        change: what the last taking over changed.
        keys: those of issuers; nobody fetches them at first.
    """

    def __init__(
        self,
        folder: Path,
        settings: MeshSettings,
        publish: Callable[[Snapshot], None],
        observe: Callable[[], None] = _ignore,
        memory: Path | None = None,
    ) -> None:
        """`publish` and `observe` are called in the loop's thread, `observe` whenever a change was taken over
        or faults or warnings are others. `memory` is a file for the last good texts."""
        self._folder = folder
        self._settings = settings
        self._publish = publish
        self._observe = observe
        self._memory = memory
        self._remembered = Memory({})
        self._forgetful: tuple[str, ...] = ()
        self._seen: Mapping[str, Seen] = {}
        self._restless: dict[str, int] = {}
        self._taken: Mapping[str, Seen] | None = None
        self._files: Files = {}
        self._snapshot = Snapshot()
        self._polled_at = 0.0
        self.keys = Keys()
        self._translator = Translator(settings, lambda source: self.keys.text(source))
        self.inventory = Inventory()
        self.translation = Translation()
        self.change = Change()
        self.loaded = False
        self.faults: tuple[Fault, ...] = ()
        self.warnings: tuple[str, ...] = ()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Poll until cancelled. Started when the folder has been looked at once, be it good or not
        (`loaded`)."""
        await self.poll(patient=False)
        task_status.started()
        cost = 0.0
        while True:
            await trio.sleep(min(max(POLL_SECONDS, 20 * cost), _SLOWEST_SECONDS))
            begun = time.perf_counter()
            await self.poll()
            cost = time.perf_counter() - begun

    async def poll(self, *, patient: bool = True) -> None:
        """Look once, and take over what has changed and, if `patient`, looked the same the time before."""
        before = self.faults, self.warnings
        self.change = Change()
        snapshot = None
        self._polled_at = trio.current_time()
        try:
            snapshot = await trio.to_thread.run_sync(self._read, patient)
        except ConfigError as error:
            self.faults = error.faults
        else:
            self.faults = tuple(sorted({*self.inventory.faults, *self._moving()}))
        if snapshot is not None:
            self.loaded = True
            self._publish(snapshot)
            self.keys.want(self._translator.jwt_policies.sources)
        self.warnings = self.translation.warnings + self._forgetful + self.keys.remarks
        if self.change or before != (self.faults, self.warnings):
            self._observe()

    def _read(self, patient: bool) -> Snapshot | None:
        """The new snapshot; None where there is none. Runs in a thread."""
        if not self.loaded and self._memory is not None:
            self._remembered = recall(self._memory, self._folder)
            self.inventory = gather(self._remembered.files, Inventory())
            self._translator.waypoints.recall(map(_name, self._remembered.served))
            self._translator.mesh.recall(self._remembered.mesh)
        stamps = look(self._folder, self._files)
        seen, self._seen = self._seen, stamps
        if stamps == self._taken and patient:
            self._restless.clear()
            return self._renew()
        wanted: Mapping[str, Seen] = stamps
        if patient:
            settled = {name: self._settled(name, seen) for name in stamps.keys() | self._files.keys()}
            wanted = {name: stamp for name, stamp in settled.items() if stamp is not None}
        files = read_all(self._folder, wanted, self._files)
        self._taken = {name: stamp for name, (stamp, _) in files.items()}
        self._count_restless(files)
        if files == self._files and self.loaded:
            return self._renew()
        self._files = files
        return self._translate()

    def _settled(self, name: str, seen: Mapping[str, Seen]) -> Seen | None:
        """The state in which a file counts: as it is now if it was so before, else as last taken over."""
        now = self._seen.get(name)
        if now == seen.get(name) or name not in self._files:
            return now if now == seen.get(name) else None
        return self._files[name][0]

    def _count_restless(self, files: Files) -> None:
        """How often each file was not what it had been a poll before."""
        late = {
            name
            for name, stamp in self._seen.items()
            if name not in files or (files[name][0] != stamp and isinstance(files[name][0], Stamp))
        }
        self._restless = {name: self._restless.get(name, 0) + 1 for name in late}

    def _moving(self) -> list[Fault]:
        """Files that somebody writes to without end, or that cannot be read as they say they are."""
        message = "does not hold still: what was last read of it counts"
        return [
            Fault(name, 0, "", message) for name, polls in self._restless.items() if polls >= _RESTLESS_POLLS
        ]

    def _translate(self) -> Snapshot:
        """A snapshot of the files; what did not change since the last one is carried over."""
        with _no_collection():
            before = self.inventory
            self.inventory = gather({name: text for name, (_, text) in self._files.items()}, before)
            self.change = difference(before if self.loaded else Inventory(), self.inventory)
            gone = dict.fromkeys(before.objects.keys() - self.inventory.objects.keys())
            delta = self._translator.update({**gone, **self.inventory.objects})
            self.translation = self._translator.translation(self.inventory.unknown)
            network, changes = self._settings.network, delta.by_type()
            self._snapshot = advance(self._snapshot, changes, network, self._polled_at)
        self._remember()
        return self._snapshot

    def ask_keys(self, names: Iterable[str]) -> None:
        """Tokens name keys that RequestAuthentications of these names, `namespace/name`, do not have: see
        soon whether they are there now."""
        self.keys.ask(self._translator.jwt_policies.sources_of(names))

    def _renew(self) -> Snapshot | None:
        """A snapshot with other keys of issuers; None where there are none."""
        changed = self.keys.take_changed()
        if not changed:
            return None
        changes = self._translator.jwt_policies.renew(changed).by_type()
        self._snapshot = advance(self._snapshot, changes, self._settings.network, self._polled_at)
        return self._snapshot

    def _remember(self) -> None:
        """Keep the texts of this state; of a file with faults, the last without."""
        if self._memory is None:
            return
        good = {
            name: self._remembered.files.get(name) if name in self.inventory.faulty_files else text
            for name, (_, text) in self._files.items()
        }
        texts = {name: text for name, text in good.items() if isinstance(text, str)}
        served = tuple(sorted(map("/".join, self._translator.waypoints.served)))
        memory = Memory(texts, served, tuple(self._translator.mesh.last_good().items()))
        if memory != self._remembered:
            self._remembered = memory
            try:
                remember(self._memory, self._folder, memory)
                self._forgetful = ()
            except OSError as error:  # the next process knows less; this one does not
                reason = error.strerror or error
                self._forgetful = (f"the last good manifests cannot be kept over a restart: {reason}",)


def _name(text: str) -> Name:
    namespace, _, name = text.partition("/")
    return namespace, name


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without the garbage collector, which would go through all that is read again and again: of the 1.8 s
    that reading a list of 5,000 pods took, 1.4 s were its."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
