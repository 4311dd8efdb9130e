"""The objects of waypoints are there as their Gateways ask for them, are put right, and nothing else is
touched."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio

from tests.control.test_deployment import TEMPLATE, gateway
from tests.kube.fake import FakeServer, answer, status
from ztunnel.control.deploy import WRITTEN, Deployer, Wanted
from ztunnel.control.settings import MeshSettings
from ztunnel.kube.resource import DEPLOYMENTS, PODS, SERVICE_ACCOUNTS, SERVICES, Resource
from ztunnel.telemetry.figures import Figures

NAME = ("shop", "wp")


class Cluster:
    """An API server, and the Gateways as the control plane knows them."""

    def __init__(self) -> None:
        self.server = FakeServer(*WRITTEN, PODS)
        self.template = TEMPLATE
        self.gateways = {NAME: gateway()}
        self.roots = "istio-ca-root-cert"
        self.told: list[str] = []

    @asynccontextmanager
    async def deploying(self) -> AsyncIterator[Deployer]:
        async with self.server.api() as api, trio.open_nursery() as nursery:
            wanted = Wanted(lambda: self.gateways, lambda: self.roots, ("ztunnel-system", "control-1"))
            made = Deployer(api, self.template, MeshSettings(), wanted, self.told.append)
            made.register(Figures())
            nursery.start_soon(made.run)
            yield made
            nursery.cancel_scope.cancel()

    def found(self, resource: Resource, name: str = "wp") -> dict[str, Any]:
        return self.server.objects[resource.path()].get(("shop", name), {})

    @property
    def patches(self) -> int:
        return sum(one.method == "PATCH" for one in self.server.requests)


async def test_each_gateway_gets_its_objects_once(autojump_clock: object) -> None:
    cluster = Cluster()
    async with cluster.deploying() as deployer:
        await trio.sleep(30)
        for resource in WRITTEN:
            [owner] = cluster.found(resource)["metadata"]["ownerReferences"]
            assert owner["uid"] == "u-1"
        before = cluster.patches
        assert before <= 2 * len(WRITTEN)
        await trio.sleep(600)
        assert cluster.patches == before, "what is as it should be is left alone"
        other = gateway()
        cluster.gateways["shop", "b"] = replace(other, meta=replace(other.meta, name="b", uid="u-2"))
        deployer.wake()
        await trio.sleep(30)
        assert cluster.found(DEPLOYMENTS, "b")
        assert deployer.troubles == {}
    assert cluster.told == []


@pytest.mark.parametrize("how", ["changed", "deleted"])
async def test_what_somebody_changes_or_deletes_is_put_right(autojump_clock: object, how: str) -> None:
    cluster = Cluster()
    async with cluster.deploying():
        await trio.sleep(30)
        wanted = cluster.found(DEPLOYMENTS)["spec"]
        if how == "deleted":
            cluster.server.remove(DEPLOYMENTS, "wp", "shop")
        else:
            found = cluster.found(DEPLOYMENTS)
            cluster.server.put(DEPLOYMENTS, {**found, "spec": {**found["spec"], "strategy": {}}})
        await trio.sleep(10)
        assert cluster.found(DEPLOYMENTS)["spec"] == wanted


async def test_a_status_is_no_change(autojump_clock: object) -> None:
    cluster = Cluster()
    async with cluster.deploying():
        await trio.sleep(30)
        before = cluster.patches
        for number in range(20):
            found = cluster.found(DEPLOYMENTS)
            found["metadata"] = {
                **found["metadata"], "annotations": {**found["metadata"]["annotations"],
                                                     "deployment.kubernetes.io/revision": str(number)},
            }  # fmt: skip
            cluster.server.put(DEPLOYMENTS, {**found, "status": {"readyReplicas": number}})
            await trio.sleep(1)
        assert cluster.patches == before


async def test_whoever_changes_it_all_the_time_costs_little(autojump_clock: object) -> None:
    cluster = Cluster()
    async with cluster.deploying():
        await trio.sleep(30)
        before = cluster.patches
        for number in range(200):
            found = cluster.found(DEPLOYMENTS)
            cluster.server.put(DEPLOYMENTS, {**found, "spec": {**found["spec"], "replicas": number + 2}})
            await trio.sleep(0.1)
        assert cluster.patches - before <= 2 * 20 * len(WRITTEN)


@pytest.mark.parametrize(
    "meta", [{}, {"ownerReferences": [{"kind": "Gateway", "uid": "another"}]}, {"labels": {"app": "x"}}]
)
async def test_somebody_elses_object_is_left_as_it_is_and_said(
    autojump_clock: object, meta: dict[str, Any]
) -> None:
    cluster = Cluster()
    theirs = {"metadata": {"name": "wp", "namespace": "shop", **meta}, "spec": {"ports": []}}
    cluster.server.put(SERVICES, theirs)
    async with cluster.deploying() as deployer:
        await trio.sleep(30)
        assert cluster.found(SERVICES)["spec"] == {"ports": []}
        assert "Service shop/wp is not this Gateway's" in deployer.troubles[NAME]
        assert deployer.applied["Service", "foreign"] == 1
        cluster.server.remove(SERVICES, "wp", "shop")
        await trio.sleep(120)
        assert cluster.found(SERVICES)["metadata"]["ownerReferences"]
    assert cluster.told == ["Gateway shop/wp: Service shop/wp is not this Gateway's: it is left as it is", ""]


async def test_what_is_refused_is_said_and_tried_again_and_keeps_no_other_waiting(
    autojump_clock: object,
) -> None:
    cluster = Cluster()
    other = gateway()
    cluster.gateways["shop", "z"] = replace(other, meta=replace(other.meta, name="z"))
    refused = answer(403, status(403, "Forbidden", "no"))
    cluster.server.faults.append(
        lambda one: refused if one.method == "PATCH" and one.url.path.endswith("/wp") else None
    )
    async with cluster.deploying() as deployer:
        await trio.sleep(20)
        assert cluster.found(DEPLOYMENTS, "z")
        assert "needs RBAC: patch serviceaccounts" in deployer.troubles[NAME]
        cluster.server.faults.clear()
        await trio.sleep(70)
        assert cluster.found(DEPLOYMENTS)
        assert deployer.troubles == {}


async def test_a_gateway_that_goes_is_not_deployed_again(autojump_clock: object) -> None:
    """Kubernetes removes what it owned."""
    cluster = Cluster()
    async with cluster.deploying() as deployer:
        await trio.sleep(30)
        cluster.gateways.clear()
        deployer.wake()
        await trio.sleep(1)
        for resource in WRITTEN:
            cluster.server.remove(resource, "wp", "shop")
        await trio.sleep(60)
        assert not cluster.found(SERVICE_ACCOUNTS)


async def test_other_roots_are_mounted_where_an_istiod_has_come(autojump_clock: object) -> None:
    cluster = Cluster()
    async with cluster.deploying() as deployer:
        await trio.sleep(30)
        cluster.roots = "ztunnel-ca-root-cert"
        deployer.wake()
        await trio.sleep(30)
        volumes = cluster.found(DEPLOYMENTS)["spec"]["template"]["spec"]["volumes"]
        assert {"name": "root", "configMap": {"name": "ztunnel-ca-root-cert"}} in volumes


async def test_the_image_is_the_control_planes_own_where_none_is_named(autojump_clock: object) -> None:
    cluster = Cluster()
    cluster.template = replace(TEMPLATE, image="")
    async with cluster.deploying():
        await trio.sleep(30)
        assert "control-1" in cluster.told[-1]
        meta = {"name": "control-1", "namespace": "ztunnel-system"}
        cluster.server.put(PODS, {"metadata": meta, "spec": {"containers": [{"image": "own:7"}]}})
        await trio.sleep(30)
        assert cluster.told[-1] == ""
        [container] = cluster.found(DEPLOYMENTS)["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "own:7"


async def test_what_no_longer_says_whose_it_is_is_the_gateways_again(autojump_clock: object) -> None:
    """Kong/gateway-operator issue 26: it would not go with its Gateway."""
    cluster = Cluster()
    async with cluster.deploying() as deployer:
        await trio.sleep(30)
        found = cluster.found(SERVICES)
        cluster.server.put(SERVICES, {**found, "metadata": {**found["metadata"], "ownerReferences": []}})
        await trio.sleep(10)
        assert cluster.found(SERVICES)["metadata"]["ownerReferences"]
        assert deployer.troubles == {}


async def test_a_gateway_that_is_made_anew_waits_until_what_its_namesake_had_is_gone(
    autojump_clock: object,
) -> None:
    cluster = Cluster()
    async with cluster.deploying() as deployer:
        await trio.sleep(30)
        old = cluster.gateways[NAME]
        cluster.gateways[NAME] = replace(old, meta=replace(old.meta, uid="u-9"))
        deployer.wake()
        await trio.sleep(3)
        assert cluster.found(SERVICES)["metadata"]["ownerReferences"][0]["uid"] == "u-1"
        for resource in WRITTEN:
            cluster.server.remove(resource, "wp", "shop")
        await trio.sleep(5)
        for resource in WRITTEN:
            assert cluster.found(resource)["metadata"]["ownerReferences"][0]["uid"] == "u-9"
        assert deployer.troubles == {}
