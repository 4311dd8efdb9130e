"""Routes that change are compiled beside the engine, and until then those from before count."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import trio
import trio.testing

from tests.hbone.conftest import contexts, lab
from tests.hbone.peers import Lab
from tests.waypoint.mesh import WEB, Mesh
from ztunnel.model.route import Routes, RouteSource, Rule
from ztunnel.model.route_action import DirectResponse
from ztunnel.model.route_match import Match, TextKind, TextMatch
from ztunnel.model.service import ServiceName
from ztunnel.run.routes import RouteCompiler
from ztunnel.state.delta import apply

__all__ = ["contexts", "lab"]
SOURCE = RouteSource("VirtualService", "shop", "web")


def routes(status: int, service: ServiceName = WEB, path: str = "/.*") -> Routes:
    match = Match(path=TextMatch(TextKind.REGEX, path))
    return Routes(service, (Rule(str(status), SOURCE, DirectResponse(status), (match,)),))


class Turn:
    """A compiler at work, and the rounds that it has taken."""

    def __init__(self, lab: Lab) -> None:
        self.mesh = Mesh(lab)
        self.routers = self.mesh.parts.routers
        self.it = RouteCompiler(self.routers, self.mesh.here)

    async def contain(self, part: Callable[[], Awaitable[None]]) -> None:
        await part()

    def publish(self, items: Iterable[Routes]) -> None:
        self.mesh.hold.publish(*apply(self.mesh.hold.world, items))

    def name(self, port: int = 80, service: ServiceName = WEB) -> str | None:
        router = self.routers.of(self.mesh.hold.world.routes[str(service)], port)
        return router._routes[0].name if router is not None else None


async def test_what_is_sent_is_compiled_and_what_was_counts_until_then(lab: Lab) -> None:
    turn = Turn(lab)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn.it.run, turn.contain)
        await trio.testing.wait_all_tasks_blocked()
        turn.publish([routes(200)])
        await until(lambda: turn.routers.ports(str(WEB)) == [80, 90, 5432])
        assert turn.name() == "200"
        turn.publish([routes(201)])
        assert turn.name() == "200"
        await until(lambda: turn.name() == "201")
        turn.publish([routes(202, path="(")])
        await until(lambda: turn.name() is None)
        assert "missing" in turn.routers.broken[str(WEB)]
        nursery.cancel_scope.cancel()
    turn.publish([routes(203)])
    assert turn.name() == "203"  # nobody is behind: at once


async def test_routes_of_a_service_that_has_not_come_are_compiled_when_they_are_asked_for(lab: Lab) -> None:
    turn, other = Turn(lab), ServiceName("shop", "other")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn.it.run, turn.contain)
        await trio.testing.wait_all_tasks_blocked()
        turn.publish([routes(200, other)])
        turn.publish([routes(200)])
        await until(lambda: turn.routers.ports(str(WEB)) != [])
        assert turn.routers.ports(str(other)) == []
        assert turn.name(80, other) == "200"
        turn.publish([routes(201, other)])
        await until(lambda: turn.name(80, other) == "201")
        nursery.cancel_scope.cancel()


async def until(holds: Callable[[], bool]) -> None:
    """Let threads and tasks go on until that is so."""
    with trio.fail_after(4):
        while not holds():  # noqa: ASYNC110 (of a thread)
            await trio.sleep(0.001)
