"""Objects of the Kubernetes API and of files give the same world: those of all golden manifests by an API
server in memory, and all that a real cluster has, where KUBECONFIG names one."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
import trio
import yaml

from tests.kube.fake import FakeServer
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.follow import ClusterWatch
from ztunnel.control.source.inventory import Inventory, gather
from ztunnel.control.source.served import SERVED, mesh_config
from ztunnel.control.translation import translate
from ztunnel.kube.connect import open_api
from ztunnel.kube.failure import ApiFailure
from ztunnel.kube.resource import NAMESPACES, Resource
from ztunnel.xds.resource import ADDRESS, AUTHORIZATION, HTTP_TYPES, ROUTES

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.in.yaml"))
SETTINGS = MeshSettings()
BY_KIND = {served.kind: served.candidates[0] for served in (*SERVED, mesh_config(SETTINGS)[0])}
KUBECONFIG = os.environ.get("KUBECONFIG", "")


def world_of(texts):
    translation = translate(gather(texts, Inventory()), SETTINGS)
    held = {**translation.http, ROUTES: translation.routes}
    http = {name: dict(ones) for name, ones in held.items() if ones}
    return dict(translation.addresses), dict(translation.policies), http


async def first_world(api):
    published = []
    async with trio.open_nursery() as nursery:
        watch = ClusterWatch(api, SETTINGS, published.append, rng=Random(1))
        with trio.fail_after(40):
            await nursery.start(watch.run)
        nursery.cancel_scope.cancel()
    origins = published[-1].origins
    http = {url: dict(origins[url]) for url in HTTP_TYPES if origins[url]}
    return (dict(origins[ADDRESS]), dict(origins[AUTHORIZATION]), http), watch


def in_kubernetes_form(time):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name.split(".")[0])
async def test_manifests_give_the_world_that_they_give_in_an_api_server(path, autojump_clock):
    texts = json.dumps(list(yaml.safe_load_all(path.read_text())), default=in_kubernetes_form)
    served = [one for one in json.loads(texts) if one and one["kind"] in BY_KIND]
    server = FakeServer(*BY_KIND.values())
    for one in served:
        resource = BY_KIND[one["kind"]]
        namespace = {"namespace": one["metadata"].get("namespace", "default")} if resource.namespaced else {}
        server.put(resource, {**one, "metadata": {**one["metadata"], **namespace, "managedFields": [{}]}})
    async with server.api() as api:
        world, watch = await first_world(api)
    assert world == world_of({"x.yaml": yaml.safe_dump_all(served)})
    assert watch.faults == ()
    assert any(world)


def labelled(kind, name, **more):
    meta = {"name": name, "labels": {"istio.io/dataplane-mode": "ambient", "app": "web"}}
    return {"apiVersion": "v1", "kind": kind, "metadata": meta, **more}


async def everything(api):
    """All objects of the cluster, as `kubectl get -o yaml` writes them."""
    items = []
    for served in SERVED:
        for candidate in served.candidates:
            resource = Resource(candidate.group, candidate.version, candidate.plural, candidate.kind)
            with suppress(ApiFailure):  # not installed
                found = (await api.list(resource)).get("items") or ()
                items += [{"apiVersion": resource.api_version, "kind": resource.kind, **one} for one in found]
                break
    return yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items})


async def test_the_one_cluster_that_there_is_gives_the_world_of_its_manifests():
    """A real cluster where there is one; else one in memory with a pod of every sort that a kubelet
    reports."""
    server = FakeServer(*BY_KIND.values())
    server.put(BY_KIND["Namespace"], labelled("Namespace", "shop"))
    opened = open_api(KUBECONFIG) if KUBECONFIG else server.api()
    async with opened as api:
        with trio.fail_after(60):
            while True:
                before, (world, watch), after = (
                    await everything(api),
                    await first_world(api),
                    await everything(api),
                )
                if before == after:  # nothing has happened in between
                    break
    assert watch.faults == ()
    assert world == world_of({"x.yaml": before})


POLICIES = ("AuthorizationPolicy", "PeerAuthentication")
OURS = f"same-world-{os.getpid()}"


def renamed(value):
    """An object in a namespace of ours; that of the whole mesh as well."""
    meta = value["metadata"]
    return {**value, "metadata": {**meta, "namespace": f"{OURS}-{meta.get('namespace', 'default')}"}}


async def create_all(api, objects):
    for name in sorted({one["metadata"]["namespace"] for one in objects}):
        await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    for one in objects:
        version = one["apiVersion"].rpartition("/")[2] if KUBECONFIG else "v1"
        resource = next(
            each for served in SERVED for each in served.candidates
            if (each.kind, each.version) == (one["kind"], version)
        )  # fmt: skip
        await api.create(resource, one, one["metadata"]["namespace"])


async def test_policies_mean_the_same_when_an_api_server_has_taken_them():
    """With the defaults and the other version that it fills in."""
    found = [one for path in GOLDEN for one in yaml.safe_load_all(path.read_text()) if one]
    text = json.dumps([renamed(one) for one in found if one["kind"] in POLICIES], default=in_kubernetes_form)
    objects = {}
    for one in json.loads(text):
        objects.setdefault((one["kind"], one["metadata"]["namespace"], one["metadata"]["name"]), one)
        one["metadata"].pop("creationTimestamp", None)
    settings = MeshSettings(root_namespace=f"{OURS}-{SETTINGS.root_namespace}")
    opened = open_api(KUBECONFIG) if KUBECONFIG else FakeServer(*BY_KIND.values()).api()
    async with opened as api:
        try:
            await create_all(api, list(objects.values()))
            published = []
            async with trio.open_nursery() as nursery:
                watch = ClusterWatch(api, settings, published.append, rng=Random(1))
                await nursery.start(watch.run)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                for name in sorted({namespace for _, namespace, _ in objects}):
                    await api.delete(NAMESPACES, name)
    expected = translate(
        gather({"x.yaml": yaml.safe_dump_all(objects.values())}, Inventory()), settings
    ).policies
    served = {
        name: one for name, one in published[-1].origins[AUTHORIZATION].items() if name.startswith(OURS)
    }
    assert served == expected
    assert len(served) > 15
