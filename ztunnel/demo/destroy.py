"""Removes a laboratory, however much of it there is."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from ztunnel.demo import find, run
from ztunnel.demo.build import delete_namespaces
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.names import PINS, RUN, Names
from ztunnel.run.remove import forget_files


def destroy_node(names: Names, node: str) -> None:
    """Remove a node's processes, its pods' included, and its pins; not its network namespaces.

    Raises:
        LaboratoryFailed: something does not go away.
    """
    run.end(names.cgroup / node)
    shutil.rmtree(names.pins(node), ignore_errors=True)
    shutil.rmtree(names.node_directory(node), ignore_errors=True)


def destroy(names: Names) -> bool:
    """Remove processes, pins, network namespaces and files, in this order; whether there was anything.

    Idempotent: what an interrupted call left is removed by the next. What does not go away keeps nothing
    else.

    Raises:
        LaboratoryFailed: something does not go away, and what.
    """
    there = find.exists(names)
    failures: list[str] = []
    try:
        run.end(names.cgroup)
    except LaboratoryFailed as error:
        failures.append(str(error))
    for pins in find.pins(names):
        shutil.rmtree(pins, ignore_errors=True)
    delete_namespaces(names, find.namespaces(names))
    for name in find.namespaces(names):
        _remove(names.netns(name))
    shutil.rmtree(names.directory, ignore_errors=True)
    _remove(names.directory)  # where it is a file
    names.lock.unlink(missing_ok=True)
    forget_files(f"{names.lab}-*", RUN)  # of proxies that somebody started by hand
    for shared in (PINS, RUN):  # the last one turns off the light
        with suppress(OSError):
            shared.rmdir()
    left = [*find.pins(names), *map(names.netns, find.namespaces(names))]
    failures += [f"{path} does not go away" for path in left]
    if failures:
        raise LaboratoryFailed("; ".join(failures))
    return there


def _remove(path: Path) -> None:
    """What has the name of a namespace and is none."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
