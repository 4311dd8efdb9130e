"""Removes a laboratory, however much of it there is."""

from __future__ import annotations

import shutil
from contextlib import suppress

from ztunnel.demo import find, run
from ztunnel.demo.build import remove_namespaces
from ztunnel.demo.names import PINS, RUN, Names


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

    Idempotent: what an interrupted call left is removed by the next.

    Raises:
        LaboratoryFailed: something does not go away.
    """
    there = find.exists(names)
    run.end(names.cgroup)
    for pins in find.pins(names):
        shutil.rmtree(pins)
    remove_namespaces(find.namespaces(names))
    shutil.rmtree(names.directory, ignore_errors=True)
    names.lock.unlink(missing_ok=True)
    for shared in (PINS, RUN):  # the last one turns off the light
        with suppress(OSError):
            shared.rmdir()
    return there
