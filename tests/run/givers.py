"""A process that serves and may be replaced, as `incumbent` and `successor` see it."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from ztunnel.errors import PeerError
from ztunnel.pods.listen import Listeners
from ztunnel.redirect.held import HELD, HeldCall, pull_held
from ztunnel.run.incumbent import Offer, serve_successors
from ztunnel.telemetry.export import Log
from ztunnel.telemetry.level import Levels

PINS = Path("/sys/fs/bpf/ztunnel/n1")


class Lines:
    """Takes the lines of a log."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def put(self, line: str, urgent: bool = False) -> bool:
        self.lines.append(line)
        return True

    def about(self, text: str) -> list[str]:
        return [line for line in self.lines if text in line]


def call(number: int) -> HeldCall:
    """A call that waits."""
    packed = HELD.pack(number, bytes(16), 4000, 61500, bytes(16), 80, bytes(16), 0, 1, 5, b"a syn")
    return pull_held(packed)


@dataclass
class Giver:
    """Listens for two pods. `steps`: what was asked of it, in order."""

    listeners: dict[int, Listeners] = field(default_factory=dict)
    calls: list[HeldCall] = field(default_factory=list)
    pages: list[socket.socket] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    broken: bool = False

    def __post_init__(self) -> None:
        for cookie in (7, 8):
            self.listeners[cookie] = Listeners.of([socket.create_server(("127.0.0.1", 0)) for _ in range(4)])
        self.pages = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        self.log = Lines()

    async def step_back(self) -> Offer:
        self.steps.append("back")
        if self.broken:
            raise PeerError("it cannot be replaced now")
        return Offer(self.listeners, self.calls, 4711, [each.fileno() for each in self.pages])

    def step_up(self) -> None:
        self.steps.append("up")

    def hand_over(self, pages: bool) -> None:
        self.steps.append("over with pages" if pages else "over")
        self.close()

    def close(self) -> None:
        for each in (*self.listeners.values(), *self.pages):
            each.close()

    @asynccontextmanager
    async def serving(self, place: Path) -> AsyncIterator[list[str]]:
        """It can be asked; the reason of its end, once there is one."""
        ended: list[str] = []
        log = Log(self.log, Levels(), time.time_ns)  # type: ignore[arg-type]

        async def serve(*, task_status: trio.TaskStatus[None]) -> None:
            ended.append(await serve_successors(place, PINS, self, log, task_status=task_status))

        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            yield ended
            nursery.cancel_scope.cancel()
