"""The pages of a control plane: for whoever reaches its loopback, and for nobody else."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
import trio

from tests.control.test_serve import ack, snapshot
from ztunnel.cli._pages import sync_page
from ztunnel.control.serve import Server
from ztunnel.pages.message import Request
from ztunnel.xds.pb.discovery_pb2 import DeltaDiscoveryRequest
from ztunnel.xds.resource import ADDRESS

HOST = {"host": "localhost:15014"}


def request(local: bool = True, host: str = "127.0.0.1:1", **query: str) -> Request:
    return Request("GET", "/debug/syncz", query, {"host": host}, b"", local)


async def test_it_tells_how_far_each_subscriber_is(nursery: trio.Nursery) -> None:
    server = Server(snapshot("a"))
    await nursery.start(server.run)
    page = sync_page(server, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    requests, responses = server.open_session("the node")
    first = DeltaDiscoveryRequest(type_url=ADDRESS)
    first.node.id = "ztunnel~10.0.0.1~zt.sys~x"
    await requests.send(first)
    sent = await responses.receive()

    async def told(**query: str) -> list[dict[str, object]]:
        answer = await page.answer(request(**query))
        assert answer.status == 200
        return json.loads(answer.body)

    ((one),) = await told()
    assert (one["proxy"], one["identity"]) == ("zt.sys", "the node")
    assert (one["resources"][ADDRESS]["sent"], one["resources"][ADDRESS]["acked"]) == ("1", "")
    await requests.send(ack(sent))
    await trio.testing.wait_all_tasks_blocked()
    ((one),) = await told(namespace="sys")
    assert (one["resources"][ADDRESS]["sent"], one["resources"][ADDRESS]["acked"]) == ("1", "1")
    assert await told(namespace="other") == []


@pytest.mark.parametrize(
    "asked", [request(local=False), request(host="evil.example"), request(local=False, host="localhost")]
)
async def test_it_is_for_programs_of_its_own_loopback(asked: Request) -> None:
    page = sync_page(Server(), lambda: datetime(2026, 1, 1, tzinfo=UTC))
    answer = await page.answer(asked)
    assert answer.status == 403
    assert b"port-forward" in answer.body
