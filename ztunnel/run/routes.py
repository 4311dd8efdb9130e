"""Compiles routes that have changed, in a thread: meanwhile the engine goes on by those from before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from ztunnel.model.route import Routes
from ztunnel.state.change import Change
from ztunnel.state.world import World
from ztunnel.waypoint.rules.routing import Routers, compiled
from ztunnel.waypoint.upstream.find import Here

Contain = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]


class RouteCompiler:
    """That of a waypoint: it compiles what it is sent, which is what is attached to it, or is so in a moment
    (`control/waypoints/scope.py`)."""

    def __init__(self, routers: Routers, here: Here) -> None:
        self._routers = routers
        self._here = here
        self._changed: dict[str, None] = {}
        self._wanted = trio.Event()
        here.hold.subscribe(self._note)

    async def run(self, contain: Contain) -> None:
        """Compile without end; `contain` keeps a bug in one from the others."""
        self._routers.behind = True
        try:
            while True:
                await self._wanted.wait()
                self._wanted = trio.Event()
                while self._changed:
                    key = next(iter(self._changed))
                    del self._changed[key]
                    await self._compile_all(key, contain)
        finally:
            self._routers.behind = False

    def _note(self, _before: World, _world: World, change: Change) -> None:
        for kind, key in change.http:
            if kind == Routes.__name__:
                self._changed[key] = None
                self._wanted.set()

    async def _compile_all(self, key: str, contain: Contain) -> None:
        world = self._here.hold.world
        routes = world.routes.get(key)
        if routes is None:
            return
        ports = set(self._routers.ports(key))
        if (service := world.service(routes.service)) is not None:
            ports |= {port.service for port in service.ports}
        for port in sorted(ports):
            await contain(partial(self._compile, routes, port))

    async def _compile(self, routes: Routes, port: int) -> None:
        router, why = await trio.to_thread.run_sync(compiled, routes, port)
        self._routers.keep(routes, port, router, why)
