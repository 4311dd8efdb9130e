"""What a node proxy may rely on, of a control plane in its process and of one over the network alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.control.network import control_plane
from tests.control.test_serve import ack, named, snapshot
from ztunnel.control.fetch import NetworkSessions
from ztunnel.control.serve import Requests, Responses, Server
from ztunnel.errors import PeerError
from ztunnel.rpc.status import RpcError
from ztunnel.state.hold import Hold
from ztunnel.state.subscribe import subscribe
from ztunnel.state.world import World
from ztunnel.xds.pb.discovery_pb2 import DeltaDiscoveryRequest
from ztunnel.xds.resource import ADDRESS
from ztunnel.xds.subscriber import Subscriber, Update, describe_node

pytestmark = pytest.mark.timeout(30)

Session = Callable[[], AbstractAsyncContextManager[tuple[Requests, Responses]]]


@asynccontextmanager
async def embedded(directory: Path) -> AsyncIterator[tuple[Server, Session]]:
    server = Server()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        yield server, server.session
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def over_the_network(directory: Path) -> AsyncIterator[tuple[Server, Session]]:
    async with control_plane(directory) as plane:
        yield plane.server, NetworkSessions(plane.upstream()).open


@pytest.fixture(params=[embedded, over_the_network])
async def plane(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Server, Session]]:
    async with request.param(tmp_path) as made:
        yield made


Plane = tuple[Server, Session]


async def until(holds: Callable[[], object]) -> None:
    while not holds():  # noqa: ASYNC110 (what is waited for knows no Trio events)
        await trio.sleep(0.001)


async def test_everything_comes_first_then_what_changes_then_what_goes(plane: Plane) -> None:
    server, session = plane
    server.publish(snapshot("a", "b"))
    async with session() as (requests, responses):
        await requests.send(DeltaDiscoveryRequest(type_url=ADDRESS))
        first = await responses.receive()
        assert named(first) == (["a", "b"], 0)
        await requests.send(ack(first))
        await until(lambda: server.settled)
        server.publish(snapshot("b", "c"))
        second = await responses.receive()
        assert named(second) == (["c"], 1)
        await requests.send(ack(second))
        await until(lambda: server.settled)
    await until(lambda: not server.sessions)


async def test_on_demand_one_gets_what_one_names(plane: Plane) -> None:
    server, session = plane
    server.publish(snapshot("a", "b"))
    async with session() as (requests, responses):
        everything = ["*"]
        request = DeltaDiscoveryRequest(
            type_url=ADDRESS, resource_names_subscribe=everything, resource_names_unsubscribe=everything
        )
        await requests.send(request)
        assert named(await responses.receive()) == ([], 0)
        await requests.send(DeltaDiscoveryRequest(type_url=ADDRESS, response_nonce="1"))
        await requests.send(DeltaDiscoveryRequest(type_url=ADDRESS, resource_names_subscribe=["c//Pod/ns/b"]))
        assert named(await responses.receive()) == (["b"], 0)


async def test_who_comes_back_gets_what_differs(plane: Plane) -> None:
    server, session = plane
    server.publish(snapshot("a", "b"))
    hold, subscriber = Hold(World("")), Subscriber(describe_node("n", {}), "")
    updates: list[Update] = []
    for names, expected in ((("a", "b"), 2), (("b", "c"), 2)):
        server.publish(snapshot(*names))
        updates.clear()
        async with session() as ends, trio.open_nursery() as nursery:
            nursery.start_soon(subscribe, *ends, hold, subscriber, updates.append)
            await until(lambda: len(updates) >= 2 and server.settled)
            nursery.cancel_scope.cancel()
        assert len(hold.world.workloads) == expected
    changed = [each for each in updates if each.type_url == ADDRESS]
    assert [len(each.upserts) for each in changed] == [1]
    assert [each.removals for each in changed] == [("c//Pod/ns/a",)]


async def test_a_refusal_is_remembered_until_the_next_answer(plane: Plane) -> None:
    server, session = plane
    server.publish(snapshot("a"))
    async with session() as (requests, responses):
        await requests.send(DeltaDiscoveryRequest(type_url=ADDRESS))
        refusal = ack(await responses.receive())
        refusal.error_detail.message = "a: no"
        await requests.send(refusal)
        await until(lambda: server.rejections == ("a: no",))


async def test_what_is_no_type_ends_the_stream(plane: Plane) -> None:
    _, session = plane
    try:
        async with session() as (requests, responses):
            await requests.send(DeltaDiscoveryRequest(type_url="nonsense"))
            with pytest.raises(trio.EndOfChannel):
                await responses.receive()
    except (RpcError, PeerError) as error:
        said = str(error)
        assert "nonsense" in said


async def test_a_slow_subscriber_holds_nobody_up(plane: Plane) -> None:
    server, session = plane
    server.publish(snapshot("a"))
    async with session() as (idle, _), session() as (requests, responses):
        await idle.send(DeltaDiscoveryRequest(type_url=ADDRESS))
        await requests.send(DeltaDiscoveryRequest(type_url=ADDRESS))
        for number in range(20):
            response = await responses.receive()
            await requests.send(ack(response))
            server.publish(snapshot("a", f"x{number}"))


@pytest.mark.timeout(30)
async def test_who_comes_back_with_many_versions_is_understood(plane: Plane) -> None:
    """5 MiB of names and versions: gRPC's servers take 4 MiB unless they are told otherwise."""
    server, session = plane
    names = [f"pod-{number}-{'x' * 1300}" for number in range(4000)]
    request = DeltaDiscoveryRequest(type_url=ADDRESS)
    for name in names:
        request.initial_resource_versions[f"c//Pod/ns/{name}"] = "0123456789abcdef"
    assert request.ByteSize() > 4 << 20
    server.publish(snapshot("a"))
    async with session() as (requests, responses):
        await requests.send(request)
        response = await responses.receive()
        assert named(response) == (["a"], 4000)


@pytest.mark.timeout(30)
async def test_a_first_response_of_many_megabytes_arrives_whole(plane: Plane) -> None:
    server, session = plane
    server.publish(snapshot(*(f"pod-{number}-{'x' * 8000}" for number in range(600))))
    async with session() as (requests, responses):
        await requests.send(DeltaDiscoveryRequest(type_url=ADDRESS))
        response = await responses.receive()
    assert response.ByteSize() > 12 << 20
    assert len(response.resources) == 600
