"""What every node proxy does beside its work: the process set up, its thread watched, its log flushed, memory
given back."""

from __future__ import annotations

import gc
import sys
from contextlib import suppress
from functools import partial

import trio

from ztunnel import __version__
from ztunnel.config import Settings
from ztunnel.kernel import files, memory, scheduler
from ztunnel.kernel.watchdog import BEAT_SECONDS
from ztunnel.run.build import Proxy
from ztunnel.run.compiled import compiled_modules
from ztunnel.run.reporting import Reporting

_FLUSH_SECONDS = 1.0
_STARTED_SECONDS, _GIVE_BACK_SECONDS = 2.0, 20.0
_SWITCH_SECONDS = 0.001
"""How long a thread waits for the interpreter: those that compute handshakes need it for moments only."""

_COLLECT_AT = 10_000
"""New objects that hold others until the youngest are looked through: those of some hundred connections."""


def say_what_starts(reporting: Reporting, settings: Settings) -> None:
    build = {"version": __version__, "compiled": str(bool(compiled_modules())).lower()}
    reporting.log.info("starting", **build, node=settings.node, cluster=settings.cluster)


def set_up_process() -> None:
    files.raise_limit()
    _spare_collector()
    memory.share_arenas()
    sys.setswitchinterval(_SWITCH_SECONDS)
    with suppress(OSError):  # it is slower beside others who need the CPU then
        scheduler.ask_for_short_slices()


def _spare_collector() -> None:
    """Hardly anything of a connection is in a cycle, so the garbage collector finds little; with its defaults
    it looks through the connections that live several times for each that comes, for a tenth of the CPU. What
    is loaded by now stays."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AT, 20, 20)


async def give_back() -> None:
    """What the start and a storm took goes back to the machine some time after it."""
    seconds = _STARTED_SECONDS
    while True:
        await trio.sleep(seconds)
        seconds = _GIVE_BACK_SECONDS
        gc.collect(1)
        await trio.to_thread.run_sync(memory.give_back)


async def watch_thread(node: Proxy) -> None:
    """Notice where this thread, which serves all pods, stands still."""
    node.watchdog.before_exit = node.exits.add
    with node.watchdog as watchdog:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.to_thread.run_sync, watchdog.observe, abandon_on_cancel=True))
            while True:
                if stood := watchdog.beat():
                    node.reporting.log.warn("stood still", seconds=round(stood, 1))
                await trio.sleep(BEAT_SECONDS)


async def flush_log(node: Proxy) -> None:
    """Lines of failures that came too often wait for the end of their second."""
    while True:
        await trio.sleep(_FLUSH_SECONDS)
        node.outbound.report.flush()
