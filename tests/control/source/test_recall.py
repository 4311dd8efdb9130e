"""What is faulty over a restart of the control plane stays in force as it was last good."""

from datetime import UTC, datetime

import trio

from tests.control.status.test_patch import POLICIES, RESOURCES, named
from tests.kube.fake import FakeServer, answer, status
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.follow import ClusterWatch
from ztunnel.control.source.recall import NAME, LastGood
from ztunnel.control.status.patch import StatusWriter
from ztunnel.kube.resource import CONFIG_MAPS
from ztunnel.xds.resource import AUTHORIZATION

NAMESPACE = "ztunnel-system"
VALUE = {"metadata": {"name": "p", "namespace": "shop"}, "spec": {"action": "DENY"}}


def server_of(*objects):
    server = FakeServer(*RESOURCES.values())
    for resource, value in objects:
        server.put(resource, value)
    return server


def kept_by(server):
    found = server.objects[CONFIG_MAPS.path()].get((NAMESPACE, NAME))
    return found and found["data"]


async def test_what_is_remembered_is_recalled_and_written_once():
    server = server_of()
    async with server.api() as api:
        memory = LastGood(api, NAMESPACE)
        assert await memory.recall() == {}
        await memory.remember({})
        assert kept_by(server) is None
        await memory.remember({"AuthorizationPolicy_shop_p": VALUE})
        asked = len(server.requests)
        await memory.remember({"AuthorizationPolicy_shop_p": VALUE})
        assert len(server.requests) == asked
        assert await LastGood(api, NAMESPACE).recall() == {"AuthorizationPolicy_shop_p": VALUE}
        await memory.remember({})
        assert kept_by(server) == {}


async def test_a_memory_that_cannot_be_read_is_trouble_and_nothing_more():
    server = server_of()
    server.faults.append(lambda _: answer(403, status(403, "Forbidden", "no")))
    async with server.api() as api:
        memory = LastGood(api, NAMESPACE)
        assert await memory.recall() == {}
        assert "needs RBAC: get configmaps in namespace ztunnel-system" in memory.trouble
        await memory.remember({"x": VALUE})
        assert "needs RBAC: patch configmaps in namespace ztunnel-system" in memory.trouble


async def test_garbage_in_the_memory_is_nothing():
    data = {"a": "{", "b": "[]", "c": 7, "AuthorizationPolicy_shop_p": "{}"}
    meta = {"name": NAME, "namespace": NAMESPACE}
    server = server_of((CONFIG_MAPS, {"metadata": meta, "data": data}))
    async with server.api() as api:
        assert await LastGood(api, NAMESPACE).recall() == {"AuthorizationPolicy_shop_p": {}}
    server = server_of((CONFIG_MAPS, {"metadata": meta, "data": []}))
    async with server.api() as api:
        assert await LastGood(api, NAMESPACE).recall() == {}


async def test_what_is_too_large_for_it_is_left_out():
    server = server_of()
    async with server.api() as api:
        await LastGood(api, NAMESPACE).remember({"a": VALUE, "b": {"x": "y" * 950_000}})
        assert list(kept_by(server)) == ["a"]


async def plane(nursery, server, api, published):
    watch = ClusterWatch(api, MeshSettings(), published.append)
    writer = StatusWriter(api, watch.collection, MeshSettings(), lambda: datetime.now(UTC))
    watch.unsettled = writer.wake
    watch.memory = writer.memory = LastGood(api, NAMESPACE)
    await nursery.start(watch.run)
    return writer


async def test_a_policy_that_is_made_nonsense_of_denies_on_after_a_restart(autojump_clock):
    server, published = server_of(), []
    server.put(POLICIES, named("p", spec={"action": "DENY", "rules": [{}]}))
    async with server.api() as api:
        async with trio.open_nursery() as nursery:
            writer = await plane(nursery, server, api, published)
            forbidden = answer(403, status(403, "Forbidden", "no"))
            server.faults.append(lambda one: forbidden if one.url.path.endswith("/status") else None)
            nursery.start_soon(writer.run)
            server.put(POLICIES, named("p", spec={"action": "NONSENSE"}))
            with trio.fail_after(60):
                while not kept_by(server):  # noqa: ASYNC110
                    await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            await plane(nursery, server, api, published)
            (policy,) = published[-1].origins[AUTHORIZATION].values()
            assert policy.action.name == "DENY"
            nursery.cancel_scope.cancel()
