"""What a node says about its manifests: each fault once and when it is gone, each change as one line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from typing import Any, Protocol

from ztunnel.control.source.change import Change
from ztunnel.control.source.faulty import Marked, dump, mark
from ztunnel.control.source.inventory import Inventory
from ztunnel.errors import Fault
from ztunnel.telemetry.figures import Figures, Sample
from ztunnel.telemetry.readiness import Readiness

_LINES = 20
"""Faults or warnings said at a time and shown by readiness; of more, how many there are."""
_LINES_OF_A_FILE = 5
"""The same for one file, so that it does not hide the others."""


class Log(Protocol):
    """The part of `telemetry.export.Log` that is needed."""

    def info(self, message: str, **fields: str | int | float | bool) -> None: ...

    def warn(self, message: str, **fields: str | int | float | bool) -> None: ...

    def error(self, message: str, **fields: str | int | float | bool) -> None: ...


class Folder(Protocol):
    """The part of `control.watch.FolderWatch` that is needed."""

    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]
    inventory: Inventory
    change: Change


class ManifestReport:
    """Remembers what was said, and says what differs."""

    def __init__(self, log: Log, readiness: Readiness, root_namespace: str) -> None:
        self._log = log
        self._readiness = readiness
        self._root_namespace = root_namespace
        self._faults: tuple[Fault, ...] = ()
        self._warnings: tuple[str, ...] = ()
        self._marked: tuple[Marked, ...] = ()
        self._inventory: Inventory | None = None

    def register(self, figures: Figures) -> None:
        """Bring the figures to the register."""
        figures.gauge("ztunnel_manifest_faults", "Faults in the manifests", lambda: len(self._faults))
        figures.gauge(
            "ztunnel_policy_faults",
            "Pods in the scope of a policy that is faulty as it is written now",
            self._samples,
            ["kind", "policy", "in_force"],
        )

    def observe(self, folder: Folder) -> None:
        """Say what differs from the last time."""
        self._log_change(folder)
        self._log_faults(folder.faults)
        for warning in _some(folder.warnings, set(self._warnings)):
            self._log.warn(warning)
        marked = mark(folder.inventory, self._root_namespace)
        told = {str(one) for one in self._marked}
        for one in marked[:_LINES]:
            if str(one) not in told:
                pods = ", ".join(one.pods[:_LINES])
                self._log.warn(
                    "a policy is not taken over as it is written", policy=one.name, kind=one.key.kind,
                    in_force=one.in_force, pods=pods,
                )  # fmt: skip
        self._faults, self._warnings = folder.faults, folder.warnings
        self._marked, self._inventory = marked, folder.inventory
        self._readiness.detail("manifests", "\n".join(_some(_by_file(folder.faults))))
        self._readiness.detail("policies", "\n".join(_some(map(str, marked))))

    def dump(self) -> dict[str, Any]:
        """For the admin page, as plain JSON values."""
        return dump(self._inventory or Inventory(), self._faults, self._marked)

    def _log_change(self, folder: Folder) -> None:
        if self._inventory is None:
            self._log.info("manifests read", objects=len(folder.inventory.objects))
        elif folder.change:
            self._log.info("manifests taken over", **folder.change.fields())

    def _log_faults(self, faults: tuple[Fault, ...]) -> None:
        """Those that are new; a count when some are gone, and a line of its own when all are."""
        known = set(self._faults)
        for fault in _some(_by_file(fault for fault in faults if fault not in known)):
            self._log.error("manifest refused; what was good of it before stays in force", fault=fault)
        present = set(faults)
        gone = [fault for fault in self._faults if fault not in present]
        for fault in _some(_by_file(gone)):
            self._log.info("manifest fault is gone", fault=fault)
        if gone and not faults:
            self._log.info("all manifests are good again")

    def _samples(self) -> list[Sample]:
        return [((one.key.kind, one.name, one.in_force), len(one.pods)) for one in self._marked[:1000]]


def _by_file(faults: Iterable[Fault]) -> Iterator[str]:
    """The first of each file, and how many more there are in it."""
    for file, found in groupby(faults, lambda fault: fault.file):
        ones = list(found)
        yield from map(str, ones[:_LINES_OF_A_FILE])
        if len(ones) > _LINES_OF_A_FILE:
            yield f"{file}: and {len(ones) - _LINES_OF_A_FILE} more"


def _some(texts: Iterable[str], known: Collection[str] = ()) -> list[str]:
    """Those that are not known, at most `_LINES` and how many more."""
    fresh = [text for text in texts if text not in known]
    return fresh if len(fresh) <= _LINES else [*fresh[:_LINES], f"and {len(fresh) - _LINES} more"]
