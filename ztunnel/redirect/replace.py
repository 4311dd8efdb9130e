"""New programs over old: links and maps stay, and no connection passes unseen while they change.

States of a node's pins, each reached by a rename or by one step that may be repeated:

    nothing --install--> complete (version = its fingerprint)
    complete --replace--> no version --maps, links updated, programs swapped--> complete (another version)

A crash leaves `nothing` or `no version`; the next load then does it all again. Old programs enforce until the
moment in which their link gets the new one (BPF_LINK_UPDATE).
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ztunnel.kernel import bpf
from ztunnel.kernel.bpf import Map
from ztunnel.kernel.compile import Compiled
from ztunnel.redirect.carry import KeptMaps
from ztunnel.redirect.find import why_not_attached
from ztunnel.redirect.plan import HOOKS, SK_LOOKUP, Hook, Pins, Target

_log = logging.getLogger(__name__)

Fill = Callable[[Mapping[str, Map]], None]
"""Gets all maps by name. Raises OSError."""


def nothing_to_fill(maps: Mapping[str, Map]) -> None:
    """Where nobody serves there are no listeners."""


def install(pins: Pins, compiled: Compiled, cgroup_fd: int, version: str) -> None:
    """Load, attach and pin everything beside its place, then rename it there. Raises OSError; nothing is left
    then."""
    building = pins.under_construction()
    clear(building)
    descriptors: dict[str, int] = {}
    try:
        for place in (building.root, building.maps, building.links, building.pods, building.forwards):
            place.mkdir(mode=0o700, parents=True)
        for name, spec in compiled.maps.items():
            descriptors[name] = bpf.map_create(name, spec)
            bpf.pin(descriptors[name], building.maps / name)
        with _loaded(building.programs, compiled, descriptors) as programs:
            _attach(building, programs, cgroup_fd)
        building.version.symlink_to(version)
        building.root.rename(pins.root)
    except OSError:
        clear(building)
        raise
    finally:
        _close(descriptors)


def replace(
    pins: Pins, compiled: Compiled, cgroup_fd: int, version: str, fill: Fill = nothing_to_fill
) -> None:
    """Put new programs in place of those that are pinned, keeping links and what maps hold.

    Maps of another layout are made beside those in use. They get what these hold at last, when the programs
    are loaded, then their pins, and the programs their links; what old programs have put into the old maps
    meanwhile follows.

    Args:
        fill: enters into the new maps what cannot be copied, before a program looks there.

    Raises:
        OSError: the kernel refuses. Unsupported: what says who is in the mesh cannot be copied. What runs
            goes on then.
    """
    for place in (pins.maps, pins.links, pins.pods, pins.forwards):
        place.mkdir(mode=0o700, exist_ok=True)
    fresh = pins.programs.with_name("+programs")
    _remove_tree(fresh)
    maps = KeptMaps(pins.maps, compiled.maps)
    try:
        with _loaded(fresh, compiled, maps.descriptors) as programs:
            pins.version.unlink(missing_ok=True)
            maps.carry_over()
            fill(maps.opened)
            maps.pin()
            _attach(pins, programs, cgroup_fd)
            for place in pins.pods.iterdir():
                _update(place, programs[SK_LOOKUP.name])
            maps.carry_over()
    finally:
        maps.close()
    _remove_tree(pins.programs)
    fresh.rename(pins.programs)
    for place in pins.maps.iterdir():
        if place.name not in compiled.maps:
            place.unlink()
    pins.version.symlink_to(version)


def clear(pins: Pins) -> None:
    """Detach every link, then remove every pin. Nothing happens where there is nothing."""
    for place in (*_listed(pins.links), *_listed(pins.pods), *_listed(pins.forwards)):
        bpf.remove_link(place)
    _remove_tree(pins.root)


def _listed(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []


def _remove_tree(place: Path) -> None:
    if place.exists():
        shutil.rmtree(place)


def _close(descriptors: dict[str, int]) -> None:
    for fd in descriptors.values():
        bpf.close(fd)


@contextmanager
def _loaded(place: Path, compiled: Compiled, descriptors: dict[str, int]) -> Iterator[dict[str, int]]:
    """The programs, pinned in `place`, by descriptors that are good within the block."""
    place.mkdir(mode=0o700)
    programs: dict[str, int] = {}
    try:
        for hook in HOOKS:
            code = compiled.functions[hook.name].linked(descriptors)
            try:
                programs[hook.name] = bpf.prog_load(bpf.Program(hook.name, hook.kind, hook.hook, code))
            except OSError as error:
                if not hook.optional:
                    raise
                _log.info("the kernel loads no %s program: %s", hook.name, error.strerror)
                continue
            bpf.pin(programs[hook.name], place / hook.name)
        yield programs
    finally:
        _close(programs)


def _attach(pins: Pins, programs: dict[str, int], cgroup_fd: int) -> None:
    """Update each cgroup link, or make it where there is none on this cgroup."""
    here = bpf.target_id(cgroup_fd)
    for hook in HOOKS:
        place = pins.links / hook.name
        if hook.target is not Target.CGROUP or _update(place, programs[hook.name], here):
            continue
        link = attach(programs[hook.name], cgroup_fd, hook)
        try:
            bpf.set_pinned(link, place)
        finally:
            bpf.close(link)


def attach(program_fd: int, cgroup_fd: int, hook: Hook) -> int:
    """A link's descriptor. Raises OSError, which names who is in the way."""
    try:
        return bpf.link_create(program_fd, cgroup_fd, hook.hook)
    except OSError as error:
        place = os.readlink(f"/proc/self/fd/{cgroup_fd}")
        raise OSError(error.errno, why_not_attached(error, cgroup_fd, hook, place)) from error


def _update(place: Path, program_fd: int, target: int | None = None) -> bool:
    """Whether a link is pinned at `place`, attached to `target` (None: anything), which now runs this
    program."""
    try:
        link = bpf.open_pinned(place)
    except FileNotFoundError:
        return False
    try:
        attached = bpf.link_info(link).target
        if attached == 0:  # what it was attached to is gone
            place.unlink()
            return False
        if target not in (None, attached):
            return False
        bpf.link_update(link, program_fd)
        return True
    finally:
        bpf.close(link)
