"""The world follows the control plane, one response at a time, over streams that end whenever they like."""

import gc
import sys

import pytest
import trio

from ztunnel.errors import PeerError
from ztunnel.model.http_policy import HttpAction, HttpPolicy
from ztunnel.model.policy import Action, Policy, PolicyScope
from ztunnel.model.workload import Workload
from ztunnel.state.hold import Hold
from ztunnel.state.subscribe import subscribe
from ztunnel.xds.pb.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource
from ztunnel.xds.publisher import Publisher
from ztunnel.xds.resource import ADDRESS, AUTHORIZATION, TYPES
from ztunnel.xds.snapshot import Snapshot, take
from ztunnel.xds.subscriber import Subscriber, describe_node


def pod(name, *policies):
    return Workload(f"c//Pod/ns/{name}", name, "ns", authorization_policies=policies)


def policy(name):
    return Policy(name, "ns", PolicyScope.WORKLOAD_SELECTOR, Action.DENY)


class Stream:
    """The control plane's end of a stream, and the subscriber's side of it."""

    def __init__(self, hold, subscriber, snapshot=None):
        send, self.requests = trio.open_memory_channel[DeltaDiscoveryRequest](2 * len(TYPES))
        self.responses, receive = trio.open_memory_channel[DeltaDiscoveryResponse](2 * len(TYPES))
        self.publisher = Publisher(snapshot or Snapshot())
        self.updates = []
        self._task = (send, receive, hold, subscriber, self.updates.append)

    async def run(self):
        await subscribe(*self._task)

    async def serve(self):
        """Answer until nothing more is asked."""
        await trio.testing.wait_all_tasks_blocked()
        while self.requests.statistics().current_buffer_used:
            for response in self.publisher.receive(await self.requests.receive()):
                await self.responses.send(response)
            await trio.testing.wait_all_tasks_blocked()

    async def publish(self, *resources):
        for response in self.publisher.publish(take(resources, "", Snapshot())):
            await self.responses.send(response)
        await self.serve()


@pytest.fixture
def hold():
    return Hold()


@pytest.fixture
def subscriber():
    return Subscriber(describe_node("id", {}), "")


async def test_nothing_of_a_response_and_no_earlier_world_is_held_while_the_next_is_waited_for(
    hold, subscriber, nursery
):
    """Of a mesh of 100,000 workloads each is as large as the world itself."""
    stream = Stream(hold, subscriber)
    nursery.start_soon(stream.run)
    await stream.serve()
    (response,) = stream.publisher.publish(take([pod("a")], "", Snapshot()))
    before, empty = hold.world, sys.getrefcount(hold.world)
    await stream.responses.send(response)
    await stream.serve()
    assert hold.world is not before
    gc.collect()
    assert sys.getrefcount(response) == 2
    assert sys.getrefcount(before) < empty


async def test_the_world_is_what_was_published(hold, subscriber, nursery):
    stream = Stream(hold, subscriber, take([pod("a", "ns/p"), policy("p")], "", Snapshot()))
    nursery.start_soon(stream.run)
    await stream.serve()
    assert subscriber.complete
    assert hold.world.workload(pod("a").uid) == pod("a", "ns/p")
    assert hold.world.policies["ns/p"] == policy("p")
    await stream.publish(pod("b"))
    assert hold.world.workload(pod("a").uid) is None
    assert hold.world.workload(pod("b").uid) == pod("b")
    assert "ns/p" not in hold.world.policies
    assert stream.publisher.settled


@pytest.mark.parametrize("waypoint", [True, False])
async def test_a_waypoint_is_sent_what_node_proxies_are_not(hold, nursery, waypoint):
    subscriber = Subscriber(describe_node("id", {}), "", *([TYPES] if waypoint else []))
    rule = HttpPolicy("p", "ns", HttpAction.DENY)
    stream = Stream(hold, subscriber, take([pod("a"), policy("p"), rule], "", Snapshot()))
    nursery.start_soon(stream.run)
    await stream.serve()
    assert dict(hold.world.http_policies) == ({"ns/p": rule} if waypoint else {})
    await stream.publish(pod("a"), policy("p"))
    assert (dict(hold.world.http_policies), set(hold.world.policies)) == ({}, {"ns/p"})


async def test_a_change_is_in_force_before_it_is_acknowledged(hold, nursery):
    subscriber = Subscriber(describe_node("id", {}), "", [ADDRESS])
    stream = Stream(hold, subscriber, take([pod("a")], "", Snapshot()))
    seen = []
    hold.subscribe(lambda old, new, change: seen.append(stream.requests.statistics().current_buffer_used))
    nursery.start_soon(stream.run)
    await stream.serve()
    assert seen == [0]


async def test_a_refused_resource_is_answered_and_observed(hold, subscriber, nursery):
    stream = Stream(hold, subscriber)
    nursery.start_soon(stream.run)
    await stream.serve()
    await stream.responses.send(DeltaDiscoveryResponse(type_url=ADDRESS, resources=[Resource(name="bad")]))
    answer = await stream.requests.receive()
    assert answer.error_detail.message.startswith("bad: ")
    assert stream.updates[-1].rejected == (answer.error_detail.message,)


async def test_it_returns_when_the_stream_ends_and_goes_on_with_the_next(hold, subscriber):
    first = Stream(hold, subscriber, take([pod("a"), pod("b")], "", Snapshot()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.run)
        await first.serve()
        await first.responses.aclose()
    second = Stream(hold, subscriber, take([pod("b"), pod("c")], "", Snapshot()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(second.run)
        await second.serve()
        await second.responses.aclose()
    (update,) = [one for one in second.updates if one.type_url == ADDRESS]
    assert (update.upserts, update.removals) == ((pod("c"),), (pod("a").uid,))
    assert set(hold.world.workloads) == {pod("b").uid, pod("c").uid}


async def test_it_returns_when_nobody_takes_its_requests(hold, subscriber):
    stream = Stream(hold, subscriber)
    await stream.requests.aclose()
    await stream.run()


async def test_a_response_that_nobody_asked_for_ends_the_stream(hold, subscriber):
    stream = Stream(hold, subscriber)
    await stream.responses.send(DeltaDiscoveryResponse(type_url="other"))
    with pytest.raises(PeerError, match="not asked for"):
        await stream.run()


@pytest.mark.parametrize("messages", range(5))
async def test_a_cancellation_leaves_the_world_between_two_responses(hold, subscriber, messages):
    stream = Stream(hold, subscriber, take([pod("a", "ns/p"), policy("p")], "", Snapshot()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(min(messages, 2)):
            for response in stream.publisher.receive(await stream.requests.receive()):
                await stream.responses.send(response)
            if messages > 2:
                await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    for type_url, known in ((ADDRESS, hold.world.workloads), (AUTHORIZATION, hold.world.policies)):
        assert subscriber.accepted(type_url).keys() == set(known)
    again = Stream(hold, subscriber, take([pod("b")], "", Snapshot()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(again.run)
        await again.serve()
        await again.responses.aclose()
    assert set(hold.world.workloads) == {pod("b").uid}
    assert set(hold.world.policies) == set()


MANY = [pod(f"p{number}") for number in range(1800)]


async def test_a_large_response_leaves_the_thread_to_others_and_comes_into_force_at_once(
    hold, subscriber, nursery
):
    changes, turns = [], 0
    hold.subscribe(lambda _, world, change: changes.append((len(world.workloads), change)))

    async def another_task():
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1
            assert len(hold.world.workloads) in (0, len(MANY))

    stream = Stream(hold, subscriber, take(MANY, "", Snapshot()))
    nursery.start_soon(stream.run)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as others:
            others.start_soon(another_task)
            while ADDRESS not in [update.type_url for update in stream.updates]:
                for response in stream.publisher.receive(await stream.requests.receive()):
                    await stream.responses.send(response)
            scope.cancel()
    assert turns > len(MANY) / 25 + len(MANY) / 50
    assert [count for count, _ in changes] == [len(MANY)]
    assert changes[0][1].workloads == {one.uid for one in MANY}


async def test_a_stream_that_ends_within_a_large_response_leaves_all_as_it_was(hold, subscriber):
    for patience in range(1, 120, 14):
        send, requests = trio.open_memory_channel(4)
        responses, receive = trio.open_memory_channel(4)
        publisher = Publisher(take(MANY, "", Snapshot()))
        publisher.receive(DeltaDiscoveryRequest(type_url=AUTHORIZATION))
        publisher.receive(DeltaDiscoveryRequest(type_url=AUTHORIZATION, response_nonce="1"))
        [response] = publisher.receive(DeltaDiscoveryRequest(type_url=ADDRESS))
        await responses.send(response)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(subscribe, send, receive, hold, subscriber)
                for _ in range(3 + patience):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        assert len(subscriber.accepted(ADDRESS)) == len(hold.world.workloads)
        requests.close()
