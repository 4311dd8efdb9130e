"""A waypoint's world is what it serves, and who it has asked for, over whatever streams there are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.control.scoped import pod, service, snapshot
from tests.inbound.parts import Signer
from tests.run.parts import SETTINGS, until
from tests.run.running import Planes
from ztunnel.control.serve import Server
from ztunnel.run.follow import ControlPlane, Ends, Knowledge, follow
from ztunnel.run.reporting import Reporting
from ztunnel.xds.resource import ADDRESS, HTTP_TYPES, WAYPOINT_TYPES, Resource

OWN = replace(SETTINGS, pod_name="w-1", pod_namespace="shop", cluster="c", network="")
WAYPOINT = service("w")
WEB = service("web", at=WAYPOINT)
SERVED = (WAYPOINT, WEB, pod("w-1", WAYPOINT), pod("web-1", WEB))
ADDRESSES = ip_address("10.0.0.7"), ip_address("fd00::7")
CLIENT = pod("client", addresses=ADDRESSES)
STRANGER = ip_address("10.0.0.8")


class Control:
    """A control plane that can be another one."""

    def __init__(self) -> None:
        self.server = Server()
        self.runs = trio.CancelScope()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Ends]:
        async with self.server.session() as ends:
            yield ends

    async def begin(self, nursery: trio.Nursery, *resources: Resource) -> None:
        before, self.runs = self.runs, trio.CancelScope()
        self.server = Server(snapshot(*resources))
        nursery.start_soon(self.run)
        before.cancel()

    async def run(self) -> None:
        with self.runs:
            await self.server.run()


@pytest.fixture
async def control(nursery: trio.Nursery) -> Control:
    made = Control()
    await made.begin(nursery, *SERVED, CLIENT)
    return made


@pytest.fixture
async def knowledge(nursery: trio.Nursery, control: Control) -> Knowledge:
    made = Knowledge(OWN, ControlPlane(control.session, Signer()), WAYPOINT_TYPES)
    reporting = Reporting(OWN)
    nursery.start_soon(follow, OWN, reporting, made)
    await made.received.wait()
    assert "ztunnel_on_demand_addresses" in {each.name for each in reporting.figures.families()}
    return made


@pytest.mark.parametrize("ip", ADDRESSES)
async def test_who_calls_is_known_once_it_was_asked_for(knowledge: Knowledge, ip) -> None:
    assert {*knowledge.hold.world.workloads} == {"c//Pod/shop/w-1", "c//Pod/shop/web-1"}
    assert knowledge.on_demand is not None
    assert knowledge.on_demand.awaits(ip, trio.current_time())
    await until(lambda: knowledge.hold.world.by_ip(ip) == CLIENT)
    assert not knowledge.on_demand.awaits(ip, trio.current_time())
    assert knowledge.on_demand.awaits(STRANGER, trio.current_time())
    await until(lambda: not knowledge.on_demand.awaits(STRANGER, trio.current_time()))
    assert knowledge.hold.world.by_ip(STRANGER) is None
    assert knowledge.on_demand.unanswered == 0


async def test_another_stream_goes_on_with_what_was_asked_for(
    nursery: trio.Nursery, control: Control, knowledge: Knowledge
) -> None:
    assert knowledge.on_demand is not None
    for ip in (*ADDRESSES, STRANGER):
        knowledge.on_demand.awaits(ip, trio.current_time())
    await until(lambda: CLIENT.uid in knowledge.hold.world.workloads)
    comes = pod("late", addresses=(STRANGER,))
    await control.begin(nursery, *SERVED, comes)
    await until(lambda: comes.uid in knowledge.hold.world.workloads)
    assert CLIENT.uid not in knowledge.hold.world.workloads


async def test_who_is_met_no_more_leaves_the_world(knowledge: Knowledge) -> None:
    assert knowledge.on_demand is not None
    knowledge.on_demand.awaits(ADDRESSES[0], 0.0)
    await until(lambda: CLIENT.uid in knowledge.hold.world.workloads)
    knowledge.on_demand.expire(1e9)
    await until(lambda: CLIENT.uid not in knowledge.hold.world.workloads)


async def test_a_control_plane_that_is_none_of_ours_is_asked_for_nothing(autojump_clock) -> None:
    planes, reporting = Planes(), Reporting(OWN)
    knowledge = Knowledge(OWN, planes.plane, WAYPOINT_TYPES)
    assert knowledge.on_demand is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow, OWN, reporting, knowledge)
        await wait_all_tasks_blocked()
        requests, _ = planes.streams[-1]
        first = [requests.receive_nowait() for _ in WAYPOINT_TYPES]
        assert not any(one.resource_names_subscribe for one in first)
        await planes.answer(ADDRESS)
        requests.receive_nowait()
        assert not knowledge.on_demand.awaits(STRANGER, trio.current_time())
        await planes.answer(HTTP_TYPES[0])
        requests.receive_nowait()
        assert knowledge.on_demand.awaits(STRANGER, trio.current_time())
        await wait_all_tasks_blocked()
        asked = requests.receive_nowait()
        assert (asked.type_url, list(asked.resource_names_subscribe)) == (ADDRESS, ["/10.0.0.8"])
        await planes.end()
        assert not knowledge.on_demand.awaits(STRANGER, trio.current_time())
        nursery.cancel_scope.cancel()
