"""All parts of a node in this process, and control planes that the test plays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio
from trio.testing import wait_all_tasks_blocked

from tests.builders import connection
from tests.inbound.parts import Signer
from tests.run.parts import SETTINGS, Redirected, built, lines, opened
from ztunnel.errors import ConnectionFailed
from ztunnel.run.build import Node
from ztunnel.run.follow import ControlPlane, follow
from ztunnel.run.pages import Listeners, listen
from ztunnel.run.serve import run_parts
from ztunnel.run.stop import Stop
from ztunnel.xds.pb import discovery_pb2
from ztunnel.xds.resource import ADDRESS, AUTHORIZATION, TYPES


@dataclass
class Running:
    node: Node
    redirection: Redirected
    listeners: Listeners
    stop: Stop
    is_over: bool = False

    @property
    def state(self) -> list[str]:
        return self.node.reporting.readiness.render(trio.current_time())[1].splitlines()

    def figure(self, name: str) -> dict[tuple[str, ...], float]:
        families = {family.name: family for family in self.node.reporting.figures.families()}
        return dict(families[name].samples) if name in families else {}

    def said(self, text: str) -> list[str]:
        return [line for line in lines(self.node) if text in line]


@asynccontextmanager
async def running(plane: ControlPlane, **changes: object) -> AsyncIterator[Running]:
    """All parts run; at the end they are asked to end, and do."""
    with built(plane, **changes) as (node, redirection), opened(await listen(SETTINGS)) as listeners:
        parts = Running(node, redirection, listeners, Stop())

        async def run_them() -> None:
            async with trio.open_nursery() as knowing:
                knowing.start_soon(follow, node.settings, node.reporting, node.knowledge)
                await run_parts(node, listeners, parts.stop)
                knowing.cancel_scope.cancel()
            parts.is_over = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_them)
            yield parts
            parts.stop.ask()
            parts.stop.ask()


class Planes:
    """Opens streams, of which the test plays the other end."""

    def __init__(self) -> None:
        self.opened_at: list[float] = []
        self.ended_at: list[float] = []
        self.streams: list[tuple] = []
        self.refuses = 0
        self.failure: Exception | None = None

    @property
    def plane(self) -> ControlPlane:
        return ControlPlane(self.open, Signer())

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple]:
        self.opened_at.append(trio.current_time())
        if self.refuses:
            self.refuses -= 1
            raise trio.WouldBlock
        send, requests = trio.open_memory_channel(len(TYPES))
        responses, receive = trio.open_memory_channel(10)
        self.streams.append((requests, responses))
        yield send, receive
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    async def answer(self, url: str, *names: str, nonce: str = "1") -> None:
        response = discovery_pb2.DeltaDiscoveryResponse(type_url=url, nonce=nonce)
        for name in names:
            response.resources.add(name=name, version="1")
        await self.streams[-1][1].send(response)
        await wait_all_tasks_blocked()

    async def end(self) -> None:
        for channel in self.streams[-1]:
            await channel.aclose()
        self.ended_at.append(trio.current_time())
        await wait_all_tasks_blocked()


class Live:
    """A connection into a pod, that lives until it ends or is ended."""

    workload_uid = "a"

    def __init__(self, parts: Running) -> None:
        self.connection = connection("10.0.0.1:1", "10.0.0.2:80")
        self.error: ConnectionFailed | None = None
        self._all = parts.node.live
        self._all.register(self)

    def abort(self, error: ConnectionFailed) -> None:
        self.error = error
        self.end()

    def end(self) -> None:
        self._all.unregister(self)


async def ready(planes: Planes, parts: Running) -> None:
    await wait_all_tasks_blocked()
    await planes.answer(AUTHORIZATION)
    await planes.answer(ADDRESS)
    assert parts.state == ["ready"]
