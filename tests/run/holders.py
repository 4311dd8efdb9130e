"""A holder in this process, with a kernel that is none."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from tests.run.givers import Lines
from tests.run.owners import THERE, Server
from ztunnel.run.handover import holder_of, socket_of
from ztunnel.run.hold import Holder, Station
from ztunnel.run.stop import Stop
from ztunnel.telemetry.export import Log
from ztunnel.telemetry.level import Levels


@dataclass
class Kernel:
    """`steps`: what was done, in order, equal ones in a row once."""

    used: bool = False
    broken: bool = False
    pods: int | None = 3
    steps: list[str] = field(default_factory=list)

    def _note(self, step: str) -> None:
        if self.broken:
            raise OSError("the kernel refuses")
        if self.steps[-1:] != [step]:
            self.steps.append(step)

    def guard(self) -> None:
        self._note("guard")

    def refuse(self) -> None:
        self._note("refuse")

    def is_used(self) -> bool:
        return self.used

    def free(self) -> int | None:
        self._note("free")
        freed, self.pods = self.pods, None
        return freed


@dataclass
class Held:
    pins: Path
    run_dir: Path
    kernel: Kernel
    server: Server
    log: Lines
    stop: Stop
    over: bool = False

    @property
    def place(self) -> Path:
        """Where proxies that end leave something."""
        return holder_of(self.run_dir, self.pins)

    @property
    def given_at(self) -> Path:
        """Where the next one asks."""
        return socket_of(self.run_dir, self.pins)


@asynccontextmanager
async def holding(
    folder: Path, *answers: object, seconds: float = 60.0, **kernel: object
) -> AsyncIterator[Held]:
    """It runs; at the end it is told to end, and killed."""
    pins = folder / "n1"
    pins.mkdir(exist_ok=True)
    lines = Lines()
    log = Log(lines, Levels(), time.time_ns)  # type: ignore[arg-type]
    server = Server(*(answers or (THERE,)))
    held = Held(pins, folder / "run", Kernel(**kernel), server, lines, Stop())  # type: ignore[arg-type]
    holder = Holder(Station(pins, held.run_dir, held.kernel), server.owner(), log, seconds)

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        await holder.run(held.stop, task_status=task_status)
        held.over = True

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        yield held
        nursery.cancel_scope.cancel()
