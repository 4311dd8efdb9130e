"""Watches a folder of manifests, and publishes what it says whenever it changes and holds still.

A change is taken over when a file looks the same twice in a row, a poll apart: whoever writes a file in
several steps, or replaces it by removing it first, is given that time. What is wrong changes nothing: the
last good state stays in force, and the faults say what is wrong until it is fixed."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Final

import trio

from ztunnel.control.inventory import Inventory, gather
from ztunnel.control.load import Stamp, look, read_all
from ztunnel.control.settings import MeshSettings
from ztunnel.control.translation import Translation, translate
from ztunnel.errors import ConfigError, Fault
from ztunnel.xds.snapshot import Snapshot, take

POLL_SECONDS: Final = 0.25
"""A change is in force after two polls at the most, and the time that it takes to read and translate it."""
_SLOWEST_SECONDS: Final = 0.4
"""Between looks at a folder of thousands of files, each of which costs some 4 us."""


def _ignore() -> None:
    """The default observer."""


class FolderWatch:
    """One folder. After each poll `faults` and `warnings` say how things stand; `publish` gets each new
    snapshot.

    Attributes:
        loaded: whether there has been a good state yet.
        faults: what is wrong now; while there are any, the state before stays in force.
        warnings: what the operator should know about the state in force.
    """

    def __init__(
        self,
        folder: Path,
        settings: MeshSettings,
        publish: Callable[[Snapshot], None],
        observe: Callable[[], None] = _ignore,
    ) -> None:
        """`publish` and `observe` are called in the loop's thread, `observe` whenever faults or warnings
        change."""
        self._folder = folder
        self._settings = settings
        self._publish = publish
        self._observe = observe
        self._seen: Mapping[str, Stamp] = {}
        self._taken: Mapping[str, Stamp] | None = None
        self._files: dict[str, tuple[Stamp, str | Fault]] = {}
        self._wrong: tuple[Fault, ...] = ()
        self._inventory = Inventory()
        self._translation = Translation()
        self._snapshot = Snapshot()
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
        snapshot = None
        try:
            snapshot = await trio.to_thread.run_sync(self._read, patient)
        except ConfigError as error:
            self.faults = error.faults
        else:
            self.faults = self._wrong
        if snapshot is not None:
            self.loaded = True
            self.warnings = self._translation.warnings
            self._publish(snapshot)
        if before != (self.faults, self.warnings):
            self._observe()

    def _read(self, patient: bool) -> Snapshot | None:
        """The new snapshot; None where there is none (and `_wrong` says why not). Runs in a thread."""
        stamps = look(self._folder)
        seen, self._seen = self._seen, stamps
        if stamps == self._taken and patient:
            return None
        wanted = stamps
        if patient:
            settled = {name: self._settled(name, seen) for name in stamps.keys() | self._files.keys()}
            wanted = {name: stamp for name, stamp in settled.items() if stamp is not None}
        files = read_all(self._folder, wanted, self._files)
        readable = all(isinstance(text, str) for _, text in files.values())
        self._taken = {name: stamp for name, (stamp, _) in files.items()} if readable else None
        if files == self._files and (self.loaded or self._wrong):
            return None
        self._files = files
        try:
            return self._translate()
        except ConfigError as error:
            self._wrong = error.faults
            return None

    def _settled(self, name: str, seen: Mapping[str, Stamp]) -> Stamp | None:
        """The state in which a file counts: as it is now if it was so before, else as last taken over."""
        now = self._seen.get(name)
        if now == seen.get(name) or name not in self._files:
            return now if now == seen.get(name) else None
        return self._files[name][0]

    def _translate(self) -> Snapshot:
        """A snapshot of the files; what did not change since the last one is carried over."""
        with _no_collection():
            self._inventory = gather({name: text for name, (_, text) in self._files.items()}, self._inventory)
            self._translation = translate(self._inventory, self._settings, self._translation)
            resources = chain(self._translation.policies.values(), self._translation.addresses.values())
            self._snapshot = take(resources, self._settings.network, self._snapshot)
        self._wrong = ()
        return self._snapshot


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
