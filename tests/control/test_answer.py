"""Delta xDS on 15012, with grpcio as an Istio ztunnel."""

from __future__ import annotations

import queue
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import trio

from tests.control.network import TOKEN, Plane, Said, authenticate, control_plane
from tests.control.test_contract import until
from tests.control.test_serve import ack, named, snapshot
from ztunnel.control.answer import PATH, Discovery
from ztunnel.control.figures import ControlFigures
from ztunnel.control.serve import Server
from ztunnel.rpc.answer import Peer
from ztunnel.telemetry.figures import Figures
from ztunnel.xds.pb.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from ztunnel.xds.resource import ADDRESS

pytestmark = pytest.mark.timeout(30)

run = trio.to_thread.run_sync


class Subscriber:
    """A stream of grpcio's; its methods wait, so they are called in threads."""

    def __init__(self, channel: grpc.Channel, token: str = TOKEN) -> None:
        self._asked: queue.SimpleQueue[DeltaDiscoveryRequest | None] = queue.SimpleQueue()
        method = channel.stream_stream(
            PATH, DeltaDiscoveryRequest.SerializeToString, DeltaDiscoveryResponse.FromString
        )
        self.call = method(self._requests(), metadata=[("authorization", f"Bearer {token}")])

    def _requests(self) -> Iterator[DeltaDiscoveryRequest]:
        while (request := self._asked.get()) is not None:
            yield request

    def ask(self, request: DeltaDiscoveryRequest) -> None:
        self._asked.put(request)

    def next(self) -> DeltaDiscoveryResponse:
        return next(self.call)

    def close(self) -> None:
        self._asked.put(None)
        self.call.cancel()


@pytest.fixture
def channel_to() -> object:
    """A channel of grpcio's to a control plane."""
    opened: list[grpc.Channel] = []

    def open_to(plane: Plane) -> grpc.Channel:
        assert plane.authority.current is not None
        credentials = grpc.ssl_channel_credentials(plane.authority.current.roots_pem.encode())
        channel = grpc.secure_channel(
            f"127.0.0.1:{plane.port}", credentials, [("grpc.ssl_target_name_override", "istiod.test")]
        )
        opened.append(channel)
        return channel

    yield open_to
    for each in opened:
        each.close()


async def test_a_ztunnel_of_istio_subscribes(channel_to: object, tmp_path: Path) -> None:
    async with control_plane(tmp_path) as plane:
        plane.server.publish(snapshot("a"))
        subscriber = Subscriber(channel_to(plane))
        request = DeltaDiscoveryRequest(type_url=ADDRESS)
        request.node.id = "ztunnel~10.0.0.1~ztunnel-x.istio-system~istio-system.svc.cluster.local"
        subscriber.ask(request)
        first = await run(subscriber.next)
        assert named(first) == (["a"], 0)
        subscriber.ask(ack(first))
        await until(lambda: plane.server.settled)
        plane.server.publish(snapshot("b"))
        second = await run(subscriber.next)
        assert named(second) == (["b"], 1)
        refusal = ack(second)
        refusal.error_detail.message = "b: cannot"
        subscriber.ask(refusal)
        await until(lambda: plane.server.rejections)
        assert plane.said.lines == [
            ("a node proxy rejected resources", {"node": "the node", "type": ADDRESS, "reason": "b: cannot"})
        ]
        read = {family.name: dict(family.samples) for family in plane.figures.families()}
        assert read["pilot_xds"] == {("1",): 1}
        assert read["pilot_xds_pushes"] == {("wds",): 2}
        assert read["pilot_total_xds_rejects"] == {("wds",): 1}
        others = {one.name: one.value for family in plane.figures.others() for one in family.samples}
        assert others["pilot_proxy_convergence_time_count"] == 1
        assert others["ztunnel_control_push_seconds_count"] == 0
        subscriber.close()
        await until(lambda: not plane.server.sessions)


@pytest.mark.parametrize(
    ("token", "octets", "code"),
    [
        ("nobody", b"", grpc.StatusCode.UNAUTHENTICATED),
        (TOKEN, b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
        (TOKEN, b"\x12\x01x", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_what_cannot_be_served_says_why(
    channel_to: object, tmp_path: Path, token: str, octets: bytes, code: grpc.StatusCode
) -> None:
    async with control_plane(tmp_path) as plane:
        method = channel_to(plane).stream_stream(PATH)
        call = method(iter([octets]), metadata=[("authorization", f"Bearer {token}")])
        with pytest.raises(grpc.RpcError) as refused:
            await run(next, call)
        assert refused.value.code() is code
        assert refused.value.details()


class Quiet:
    """A call of a subscriber that asks once, takes all, and then says nothing."""

    def __init__(self) -> None:
        self.metadata = {"authorization": f"Bearer {TOKEN}"}
        self.peer, self.leaving = Peer(None), trio.Event()
        self.untrusted = [DeltaDiscoveryRequest(type_url=ADDRESS).SerializeToString()]
        self.sent: list[bytes] = []

    def take_messages_of(self, most_bytes: int) -> None:
        pass

    async def receive(self) -> bytes:
        if not self.untrusted:
            await trio.sleep_forever()
        return self.untrusted.pop()

    async def send(self, octets: bytes) -> None:
        self.sent.append(octets)


async def test_nothing_of_a_response_is_held_while_the_next_is_waited_for(nursery: trio.Nursery) -> None:
    """With 5,000 pods each first response took 4 MiB for as long as nothing changed."""
    server, figures = Server(snapshot("a")), Figures()
    await nursery.start(server.run)
    call = Quiet()
    discovery = Discovery(server, authenticate, ControlFigures(figures, "1", lambda: 0), Said())
    nursery.start_soon(discovery.stream, call)
    await trio.testing.wait_all_tasks_blocked()
    [octets] = call.sent
    call.sent.clear()
    assert sys.getrefcount(octets) == 2
    nursery.cancel_scope.cancel()


async def test_a_drain_ends_the_stream_so_that_another_replica_serves(
    channel_to: object, tmp_path: Path
) -> None:
    async with control_plane(tmp_path) as plane:
        plane.server.publish(snapshot("a"))
        subscriber = Subscriber(channel_to(plane))
        subscriber.ask(DeltaDiscoveryRequest(type_url=ADDRESS))
        await run(subscriber.next)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(plane.rpc.drain, 4)
            with pytest.raises(grpc.RpcError) as ended:
                await run(subscriber.next)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "leaving" in ended.value.details()
        subscriber.close()


async def test_the_first_response_may_be_large(channel_to: object, tmp_path: Path) -> None:
    """More than a frame, a window and grpc's default of 4 MiB, cut by nobody."""
    async with control_plane(tmp_path) as plane:
        plane.server.publish(snapshot(*(f"pod-{number}-{'x' * 200}" for number in range(5000))))
        subscriber = Subscriber(channel_to(plane))
        subscriber.ask(DeltaDiscoveryRequest(type_url=ADDRESS))
        first = await run(subscriber.next)
        assert len(first.resources) == 5000
        subscriber.close()
