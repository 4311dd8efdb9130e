"""The API server in memory and a real one (where KUBECONFIG names one) show a client the same."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio

from tests import waiting
from tests.kube.fake import FakeServer
from ztunnel.kube.connect import open_api
from ztunnel.kube.failure import ApiFailure, Request
from ztunnel.kube.informer import Informer, Upsert
from ztunnel.kube.resource import CONFIG_MAPS, PODS, Resource
from ztunnel.kube.watch import Watcher

NAMESPACE = f"source-contract-{os.getpid()}"
NOWHERE = Resource("nowhere.ztunnel.io", "v1", "things", "Thing", custom=True)
KUBECONFIG = os.environ.get("KUBECONFIG", "")
SERVERS = ["fake", "real"] if KUBECONFIG else ["fake"]

pytestmark = pytest.mark.timeout(60)


class Fake:
    selectors = None

    def __init__(self):
        self.server = FakeServer(CONFIG_MAPS, PODS)

    def opened(self):
        return self.server.api()

    async def put(self, api, name, data=""):
        value = {"metadata": {"name": name, "namespace": NAMESPACE}, "data": {"x": data}}
        self.server.put(CONFIG_MAPS, value)

    async def remove(self, api, name):
        self.server.remove(CONFIG_MAPS, name, NAMESPACE)


class Real:
    def __init__(self):
        self.selectors = {"labelSelector": "of=contract"}

    def opened(self):
        return open_api(KUBECONFIG)

    async def put(self, api, name, data=""):
        meta = {"name": name, "namespace": NAMESPACE, "labels": {"of": "contract"}}
        value = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"x": data}}
        try:
            await api.create(CONFIG_MAPS, value, NAMESPACE)
        except ApiFailure as failure:
            if failure.code != 409:
                raise
            await api.update(CONFIG_MAPS, value)

    async def remove(self, api, name):
        await api.delete(CONFIG_MAPS, name, NAMESPACE)


@pytest.fixture(scope="module")
def namespace():
    """One for the module, on the real cluster."""
    namespaces = Resource("", "v1", "namespaces", "Namespace", namespaced=False)

    async def create():
        async with open_api(KUBECONFIG) as api:
            await api.create(
                namespaces, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
            )

    async def delete():
        async with open_api(KUBECONFIG) as api:
            await api.delete(namespaces, NAMESPACE)

    if KUBECONFIG:
        trio.run(create)
    yield
    if KUBECONFIG:
        trio.run(delete)


@pytest.fixture(params=SERVERS)
def side(request, namespace):
    return Fake() if request.param == "fake" else Real()


@asynccontextmanager
async def followed(api, resource, page, selectors=None):
    there, told = {}, []
    informer = Informer([resource], Random(1), selectors, page=page)

    def take(changes):
        for change in changes:
            told.append(change)
            if isinstance(change, Upsert):
                there[change.name[1]] = change.value
            else:
                del there[change.name[1]]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Watcher(api, informer, take).run)
        yield informer, there, told
        nursery.cancel_scope.cancel()


async def until(condition):
    await waiting.until(condition, 30, 0.02)


async def test_what_is_listed_in_pages_and_then_changes_is_told_once(side):
    async with side.opened() as api:
        names = ["a", "b", "c", "d", "e"]
        for name in names:
            await side.put(api, name)
        async with followed(api, CONFIG_MAPS, 2, side.selectors) as (informer, there, told):
            await until(lambda: informer.synced)
            assert sorted(there) == names
            await side.put(api, "f", "new")
            await side.put(api, "a", "changed")
            await side.remove(api, "b")
            await until(
                lambda: sorted(there) == ["a", "c", "d", "e", "f"] and there["a"]["data"]["x"] == "changed"
            )
            assert [change.name[1] for change in told] == ["a", "b", "c", "d", "e", "f", "a", "b"]
        for name in ["a", "c", "d", "e", "f"]:
            await side.remove(api, name)


async def test_a_version_from_the_future_is_refused_as_one(side):
    async with side.opened() as api:
        params = {"resourceVersion": "99999999999", "resourceVersionMatch": "NotOlderThan"}
        with pytest.raises(ApiFailure) as caught:
            await api.list(CONFIG_MAPS, params=params)
        assert (caught.value.code, caught.value.ahead, caught.value.retry_seconds) == (504, True, 1.0)


async def test_a_version_that_is_long_gone_is_expired(side):
    if isinstance(side, Fake):
        side.server.compact()
    seen = []
    async with side.opened() as api:
        params = {"watch": "true", "resourceVersion": "1", "timeoutSeconds": "5"}
        await api.watch(Request("watch", PODS), params, lambda: None, seen.append)
    text = b"".join(seen).decode()
    assert '"ERROR"' in text.replace(" ", "")
    assert '"code":410' in text.replace(" ", "")
    assert '"Expired"' in text


async def test_a_resource_that_is_not_installed_is_absent(side):
    async with side.opened() as api, followed(api, NOWHERE, 2) as (informer, there, _):
        await until(lambda: informer.synced)
        assert (informer.installed, there, informer.trouble) == (False, {}, "")


async def test_a_watch_ends_by_itself_after_its_time(side):
    async with side.opened() as api:
        version = (await api.list(CONFIG_MAPS))["metadata"]["resourceVersion"]
        params = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "1"}
        begun = trio.current_time()
        with trio.fail_after(20):
            await api.watch(Request("watch", CONFIG_MAPS), params, lambda: None, lambda _: None)
        assert 0.5 < trio.current_time() - begun < 15
