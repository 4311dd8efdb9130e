"""The objects of waypoints are there as their Gateways ask for them, are put right, and nothing else is
touched."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio

from tests.control.waypoints.test_deployment import TEMPLATE, gateway
from tests.kube.fake import FakeServer, answer, status
from ztunnel.control.settings import MeshSettings
from ztunnel.control.waypoints.deploy import WRITTEN, Deployer, Wanted
from ztunnel.control.waypoints.fetch import DEFAULTS_FOR
from ztunnel.kube.resource import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    POD_AUTOSCALERS,
    PODS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Resource,
)
from ztunnel.state.gateway import Infrastructure
from ztunnel.telemetry.figures import Figures

NAME = ("shop", "wp")
MADE = tuple(one for one in WRITTEN if one is not POD_AUTOSCALERS)
"""What is made for each."""


class Cluster:
    """An API server, and the Gateways as the control plane knows them."""

    def __init__(self) -> None:
        self.server = FakeServer(*WRITTEN, PODS, CONFIG_MAPS)
        self.template = TEMPLATE
        self.gateways = {NAME: gateway()}
        self.roots = "istio-ca-root-cert"
        self.told: list[str] = []
        self.faults: list[tuple[tuple[str, str], str]] = []

    @asynccontextmanager
    async def deploying(self) -> AsyncIterator[Deployer]:
        async with self.server.api() as api, trio.open_nursery() as nursery:
            own = "ztunnel-system", "control-1"
            wanted = Wanted(lambda: self.gateways, lambda: self.roots, own, self.note)
            made = Deployer(api, self.template, MeshSettings(), wanted, self.told.append)
            made.register(Figures())
            nursery.start_soon(made.run)
            yield made
            nursery.cancel_scope.cancel()

    def found(self, resource: Resource, name: str = "wp") -> dict[str, Any]:
        return self.server.objects[resource.path()].get(("shop", name), {})

    def note(self, name: tuple[str, str], text: str) -> None:
        self.faults.append((name, text))

    def parameters(self, **data: str) -> None:
        self.server.put(CONFIG_MAPS, {"metadata": {"name": "options", "namespace": "shop"}, "data": data})

    def defaults(self, name: str, of_class: str, **data: str) -> None:
        meta = {"name": name, "namespace": "ztunnel-system", "labels": {DEFAULTS_FOR: of_class}}
        self.server.put(CONFIG_MAPS, {"metadata": meta, "data": data})

    @property
    def patches(self) -> int:
        return sum(one.method == "PATCH" for one in self.server.requests)


async def test_each_gateway_gets_its_objects_once(autojump_clock: object) -> None:
    cluster = Cluster()
    async with cluster.deploying() as deployer:
        await trio.sleep(30)
        for resource in MADE:
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


def of_istiod(resource: Resource) -> dict[str, Any]:
    """What istiod has made for the Gateway."""
    labels = {"gateway.istio.io/managed": "istio.io-mesh-controller"}
    owner = {"kind": "Gateway", "uid": "u-1", "name": "wp"}
    meta = {"name": "wp", "namespace": "shop", "labels": labels, "ownerReferences": [owner]}
    return {"kind": resource.kind, "metadata": meta, "spec": {"theirs": True}}


def managers(cluster: Cluster, resource: Resource) -> list[tuple[str, bool]]:
    """In whose names it was applied, and whether anything."""
    return [
        (one.url.params["fieldManager"].partition("/")[0], "spec" in one.content.decode())
        for one in cluster.server.requests
        if one.method == "PATCH" and one.url.path == f"{resource.path('shop')}/wp"
    ]


async def test_what_istiod_has_applied_is_taken_over_whole(autojump_clock: object) -> None:
    """Only who applied a field can take it away: istiod's container would stay beside ours."""
    cluster = Cluster()
    cluster.server.put(DEPLOYMENTS, of_istiod(DEPLOYMENTS))
    async with cluster.deploying() as deployer:
        await trio.sleep(600)
        first, *others = managers(cluster, DEPLOYMENTS)
        assert first == ("istio.io", True)
        assert set(others) == set(managers(cluster, SERVICES)) == {("ztunnel-control", True)}
        assert deployer.troubles == {}


async def test_an_istiod_that_still_runs_has_its_objects(autojump_clock: object) -> None:
    cluster = Cluster()
    cluster.server.put(DEPLOYMENTS, of_istiod(DEPLOYMENTS))

    async def take_back() -> None:
        while True:
            await trio.sleep(0.5)
            labels = cluster.found(DEPLOYMENTS)["metadata"]["labels"]
            if labels["gateway.istio.io/managed"] != "istio.io-mesh-controller":
                cluster.server.put(DEPLOYMENTS, of_istiod(DEPLOYMENTS))

    async with cluster.deploying() as deployer, trio.open_nursery() as nursery:
        nursery.start_soon(take_back)
        await trio.sleep(300)
        found = managers(cluster, DEPLOYMENTS)
        assert found.count(("istio.io", True)) == 3
        assert found.index(("ztunnel-control", False)) == len(found) - 1, "and then no more"
        assert cluster.found(DEPLOYMENTS)["spec"] == {"theirs": True}
        assert "is written by an istiod that still runs" in deployer.troubles[NAME]
        nursery.cancel_scope.cancel()
        await trio.sleep(600)
        assert deployer.troubles == {}


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
        for resource in MADE:
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
        for resource in MADE:
            cluster.server.remove(resource, "wp", "shop")
        await trio.sleep(5)
        for resource in MADE:
            assert cluster.found(resource)["metadata"]["ownerReferences"][0]["uid"] == "u-9"
        assert deployer.troubles == {}


def with_parameters() -> Cluster:
    cluster = Cluster()
    infrastructure = Infrastructure(parameters="ConfigMap options")
    cluster.gateways[NAME] = replace(gateway(), infrastructure=infrastructure)
    return cluster


async def test_what_its_config_map_says_is_laid_over_and_followed(autojump_clock: object) -> None:
    cluster = with_parameters()
    cluster.parameters(deployment="spec: {replicas: 3}", service="spec: {type: LoadBalancer}")
    async with cluster.deploying() as deployer:
        await trio.sleep(30)
        assert cluster.found(DEPLOYMENTS)["spec"]["replicas"] == 3
        assert cluster.found(SERVICES)["spec"]["type"] == "LoadBalancer"
        assert not cluster.found(POD_AUTOSCALERS)
        before = cluster.patches
        await trio.sleep(120)
        assert cluster.patches == before, "what is as it should be is left alone"
        cluster.parameters(horizontalPodAutoscaler="spec: {minReplicas: 2, maxReplicas: 5}")
        await trio.sleep(30)
        scaling = cluster.found(POD_AUTOSCALERS)["spec"]
        assert (scaling["minReplicas"], scaling["maxReplicas"]) == (2, 5)
        assert scaling["scaleTargetRef"]["name"] == "wp"
        assert cluster.found(SERVICES)["spec"]["type"] == "ClusterIP"
        assert deployer.troubles == {}
    assert {text for _, text in cluster.faults} == {""}


@pytest.mark.parametrize("by", ["an object of its own", "annotation"])
async def test_an_autoscaler_begins_with_the_pods_that_there_are(autojump_clock: object, by: str) -> None:
    cluster = with_parameters()
    cluster.parameters(deployment="spec: {replicas: 3}")
    async with cluster.deploying():
        await trio.sleep(30)
        found = cluster.found(DEPLOYMENTS)
        fields = [{"manager": "ztunnel-control", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]
        cluster.server.put(DEPLOYMENTS, {**found, "metadata": {**found["metadata"], "managedFields": fields}})
        await trio.sleep(30)
        assert {manager for manager, _ in managers(cluster, DEPLOYMENTS)} == {"ztunnel-control"}
        cluster.server.requests.clear()
        if by == "annotation":
            cluster.parameters()
            found_gateway = cluster.gateways[NAME]
            meta = replace(found_gateway.meta, annotations={"ztunnel.io/replicas": "auto"})
            cluster.gateways[NAME] = replace(found_gateway, meta=meta)
        else:
            cluster.parameters(horizontalPodAutoscaler="spec: {maxReplicas: 5}")
        await trio.sleep(30)
        order = [manager for manager, _ in managers(cluster, DEPLOYMENTS)]
        assert order[:2] == ["ztunnel-control-replicas", "ztunnel-control"]
        [handed] = [
            json.loads(one.content)["spec"]
            for one in cluster.server.requests
            if one.url.params.get("fieldManager") == "ztunnel-control-replicas"
        ][:1]
        assert handed == {"replicas": 3}


async def test_a_config_map_that_makes_no_sense_is_said_and_changes_nothing(autojump_clock: object) -> None:
    cluster = with_parameters()
    async with cluster.deploying() as deployer:
        await trio.sleep(30)
        assert deployer.troubles[NAME] == "ConfigMap shop/options is not there"
        assert not cluster.found(DEPLOYMENTS)
        cluster.parameters(deployment="spec: {replicas: 2}")
        await trio.sleep(30)
        assert cluster.found(DEPLOYMENTS)["spec"]["replicas"] == 2
        cluster.parameters(deployment="spec: {template: {spec: {hostNetwork: true}}}")
        await trio.sleep(30)
        assert "hostNetwork" in deployer.troubles[NAME]
        assert cluster.faults[-1] == (NAME, deployer.troubles[NAME])
        assert cluster.found(DEPLOYMENTS)["spec"]["replicas"] == 2
        cluster.parameters(deployment="spec: {replicas: 4}")
        await trio.sleep(30)
        assert cluster.found(DEPLOYMENTS)["spec"]["replicas"] == 4
        assert (deployer.troubles, cluster.faults[-1]) == ({}, (NAME, ""))


async def test_defaults_of_the_class_count_below_what_a_gateway_says_and_are_followed(
    autojump_clock: object,
) -> None:
    cluster = with_parameters()
    cluster.parameters(deployment="spec: {replicas: 3}")
    cluster.defaults("other", "another-class", service="spec: {type: NodePort}")
    cluster.defaults("b", "ztunnel-waypoint", deployment="spec: {replicas: 9}")
    cluster.defaults(
        "a", "ztunnel-waypoint", deployment="spec: {replicas: 2}", service="spec: {type: LoadBalancer}"
    )
    async with cluster.deploying() as deployer:
        await trio.sleep(30)
        assert cluster.found(DEPLOYMENTS)["spec"]["replicas"] == 3
        assert cluster.found(SERVICES)["spec"]["type"] == "LoadBalancer"
        before = cluster.patches
        await trio.sleep(60)
        assert cluster.patches == before
        cluster.gateways[NAME] = gateway()
        deployer.wake()
        await trio.sleep(30)
        assert cluster.found(DEPLOYMENTS)["spec"]["replicas"] == 2
        cluster.defaults("a", "ztunnel-waypoint", deployment="spec: {paused: 7z: 1}")
        await trio.sleep(30)
        assert deployer.troubles[NAME].startswith("ConfigMap ztunnel-system/a: deployment: line 1")
        assert cluster.found(DEPLOYMENTS)["spec"]["replicas"] == 2
        cluster.server.remove(CONFIG_MAPS, "a", "ztunnel-system")
        await trio.sleep(30)
        assert cluster.found(DEPLOYMENTS)["spec"]["replicas"] == 9
        assert cluster.found(SERVICES)["spec"]["type"] == "ClusterIP"
        assert deployer.troubles == {}


async def test_what_the_api_server_refuses_of_it_is_said_of_the_gateway(autojump_clock: object) -> None:
    cluster = with_parameters()
    cluster.parameters(deployment="spec: {replicas: -1}")
    refused = answer(422, status(422, "Invalid", "spec.replicas: must be greater than or equal to 0"))
    cluster.server.faults.append(
        lambda one: refused if one.method == "PATCH" and "deployments" in one.url.path else None
    )
    async with cluster.deploying():
        await trio.sleep(30)
    assert "must be greater" in cluster.faults[-1][1]
