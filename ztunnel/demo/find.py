"""Finds laboratories, whole or in pieces, by the names of what they left."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ztunnel.demo.names import NETNS, PINS, RUN, Names

_OURS = (
    (NETNS, re.compile(r"zt-([a-z0-9]+)-.*")),
    (RUN, re.compile(r"([a-z][a-z0-9]*)")),
    (PINS, re.compile(r"([a-z][a-z0-9]*)-.*")),
)
_CGROUP = re.compile(r"ztunnel-([a-z0-9]+)")


def laboratories(cgroup2: Path) -> list[str]:
    """The names of all laboratories of which anything is left."""
    places = (*_OURS, (cgroup2, _CGROUP))
    return sorted(
        {found[1] for place, pattern in places for found in map(pattern.fullmatch, _entries(place)) if found}
    )


def namespaces(names: Names) -> list[str]:
    """The network namespaces of a laboratory, half-made ones too."""
    return sorted(entry for entry in _entries(NETNS) if entry.startswith(names.prefix))


def pins(names: Names) -> list[Path]:
    """The directories of pins of a laboratory."""
    return sorted(PINS / entry for entry in _entries(PINS) if entry.startswith(f"{names.lab}-"))


def exists(names: Names) -> bool:
    """Whether anything of the laboratory is there."""
    return bool(names.directory.exists() or names.cgroup.exists() or namespaces(names) or pins(names))


def _entries(directory: Path) -> Iterator[str]:
    if directory.is_dir():
        yield from (path.name for path in directory.iterdir())
