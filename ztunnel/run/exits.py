"""How often a proxy of this node has ended because it stood still: kept in a file, its memory being gone."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_MOST_BYTES = 20


class StallExits:
    """The count of one installation."""

    def __init__(self, run_dir: Path, pins: Path) -> None:
        self._place = run_dir / f"{pins.name}.stalls"

    def count(self) -> int:
        """Since the machine started; 0 where nothing can be read."""
        with suppress(OSError, ValueError), self._place.open("rb") as file:
            return max(int(file.read(_MOST_BYTES)), 0)
        return 0

    def add(self) -> None:
        """One more. Where it cannot be written, whoever starts the process again counts all the same."""
        beside = self._place.with_name(f".{self._place.name}.{os.getpid()}")
        with suppress(OSError):
            beside.write_text(str(self.count() + 1))
            beside.rename(self._place)
