"""A control plane's parts over an API server in memory: objects, authority, roots, and who leads."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.control.api_server import Store
from tests.kube.fake import answer, status
from ztunnel.ca.root_maps import KEY, OWN, SHARED
from ztunnel.cli._cluster import Cluster
from ztunnel.config import read_settings
from ztunnel.control.serve import Server
from ztunnel.control.source.served import SERVED
from ztunnel.control.status.enrolment import REDIRECTION
from ztunnel.kube.resource import NAMESPACES, NODES, PODS, SERVICES, Resource
from ztunnel.run.reporting import Reporting
from ztunnel.xds.enrolment import EnrolledPod, render_pods
from ztunnel.xds.resource import ADDRESS

HOME = "ztunnel-system"
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web-0", "namespace": "shop", "uid": "u"},
    "spec": {"nodeName": "n1", "serviceAccountName": "web"},
    "status": {"podIP": "10.0.0.1", "phase": "Running"},
}
LEASES = "/apis/coordination.k8s.io/v1/namespaces/ztunnel-system/leases"


def served_resource(kind: str) -> Resource:
    return next(one.candidates[0] for one in SERVED if one.kind == kind)


class Written:
    """What a log has been told."""

    def __init__(self, reporting: Reporting) -> None:
        self.lines: list[str] = []
        reporting.writer.put = lambda line, urgent=False: self.lines.append(line) or True  # type: ignore[func-returns-value,method-assign]

    def with_word(self, word: str) -> list[str]:
        return [line for line in self.lines if word in line]


class Running:
    def __init__(self, store: Store, **flags: object) -> None:
        self.store, self.server, self.done = store, Server(), []
        settings = read_settings({"pod_name": "control-0", "log_level": "info", **flags}, {})
        self.reporting = Reporting(settings, "pilot", ["manifests", "certificate authority"])
        self.written = Written(self.reporting)
        self.settings = settings

    def figures(self) -> dict[str, list[tuple[tuple[str, ...], float]]]:
        return {one.name: list(one.samples) for one in self.reporting.figures.families()}


@pytest.fixture
def clock():
    return trio.testing.MockClock(autojump_threshold=0.05)


@pytest.fixture
def store() -> Store:
    made = Store(*(served.candidates[0] for served in SERVED if served.candidates[0] != NAMESPACES))
    for name in (HOME, "shop"):
        made.put_namespace(name)
    made.put(PODS, POD)
    made.leases = {}
    made.faults.append(lambda request: lease(made.leases, request))
    return made


def lease(leases, request):
    """Leases are kept, and not watched."""
    if not request.url.path.startswith(LEASES):
        return None
    if request.method == "GET":
        found = leases.get(request.url.path.rpartition("/")[2])
        return answer(200, found) if found else answer(404, status(404, "NotFound", "no"))
    value = json.loads(request.content)
    leases[value["metadata"]["name"]] = value
    return answer(200, value)


@asynccontextmanager
async def following(store: Store, **flags: object) -> AsyncIterator[tuple[Running, Cluster]]:
    running = Running(store, **flags)
    async with store.api() as api, trio.open_nursery() as nursery:
        cluster = Cluster(api, running.settings, running.reporting, running.server)
        await cluster.follow(nursery, running.done.append)
        yield running, cluster
        nursery.cancel_scope.cancel()


async def until(holds):
    with trio.fail_after(60):
        while not holds():  # noqa: ASYNC110 - the clock jumps
            await trio.sleep(0.1)


async def test_when_it_follows_there_are_a_world_an_authority_and_its_pods(store, clock):
    async with following(store) as (running, cluster):
        assert sorted(running.done) == ["certificate authority", "manifests"]
        assert len(running.server.snapshot.origins[ADDRESS]) == 1
        assert cluster.authority.current is not None
        assert store.secret(HOME, "ztunnel-ca-secret") is not None
        assert list(cluster.watch.pods.on_node("n1")) == [("shop", "web-0")]
        roots = {KEY: cluster.authority.current.roots_pem}
        await until(lambda: store.map("shop", SHARED) == roots and store.map(HOME, OWN) == roots)


async def test_one_replica_leads_and_says_so(store, clock):
    async with following(store) as (running, _):
        await until(lambda: running.figures()["ztunnel_control_leader"] == [((), 1.0)])
        holder = store.leases["ztunnel-control"]["spec"]["holderIdentity"]
        assert holder.startswith("control-0_")


async def test_an_api_server_that_fails_is_said_in_log_and_readiness_until_it_is_back(store, clock):
    async with following(store) as (running, _):
        broken = [True]
        store.faults.insert(
            0, lambda _: answer(500, status(500, "InternalError", "etcd")) if broken else None
        )
        store.end_watches()
        await until(lambda: "kubernetes: " in running.reporting.readiness.render(0.0)[1])
        assert running.written.with_word("not up to date")
        broken.clear()
        await until(lambda: "kubernetes: " not in running.reporting.readiness.render(0.0)[1])
        assert running.written.with_word("all kinds are up to date again")


async def test_a_kind_that_is_installed_no_more_is_said_and_when_it_is_again(store, clock):
    [policies] = [one.candidates[0] for one in SERVED if one.kind == "AuthorizationPolicy"]
    async with following(store) as (running, _):
        assert not running.written.with_word("installed")
        for _ in range(2):
            running.written.lines.clear()
            store.uninstall(policies)
            await until(lambda: running.written.with_word("not installed any more"))
            store.install(policies)
            await until(lambda: running.written.with_word("installed now"))
            assert len(running.written.with_word("installed")) == 2


async def test_ordinary_changes_are_not_logged(store, clock):
    async with following(store) as (running, cluster):
        before = len(running.written.lines)
        store.put(PODS, {**POD, "metadata": {"name": "web-1", "namespace": "shop", "uid": "v"}})
        await until(lambda: len(list(cluster.watch.pods.on_node("n1"))) == 2)
        assert running.written.lines[before:] == []


REPORT = render_pods([EnrolledPod("shop", "web-0", "u")])


async def test_enrolment_is_written_on_pods_when_their_node_proxy_has_told_it(store, clock):
    async with following(store) as (_, cluster):
        cluster.annotator.take("n1", REPORT)
        pods = store.objects[PODS.path()]
        await until(lambda: REDIRECTION in pods["shop", "web-0"]["metadata"].get("annotations", {}))
        cluster.annotator.take("n1", render_pods([]))
        await until(lambda: REDIRECTION not in pods["shop", "web-0"]["metadata"]["annotations"])


async def test_where_nothing_is_to_be_written_on_pods_nothing_is(store, clock):
    async with following(store, show_enrolment=False) as (_, cluster):
        cluster.annotator.take("n1", REPORT)
        await trio.sleep(30)
        assert REDIRECTION not in store.objects[PODS.path()]["shop", "web-0"]["metadata"].get(
            "annotations", {}
        )


@pytest.mark.parametrize("adopt", [False, True])
async def test_beside_an_istiod_pods_are_left_alone_unless_they_are_to_be_taken_over(store, clock, adopt):
    meta = {"name": "istiod", "namespace": "istio-system", "labels": {"app": "istiod"}}
    store.put(SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {}})
    async with following(store, adopt=adopt or None) as (_, cluster):
        cluster.annotator.take("n1", REPORT)
        await trio.sleep(30)
        assert (
            REDIRECTION in store.objects[PODS.path()]["shop", "web-0"]["metadata"].get("annotations", {})
        ) == adopt


async def test_a_right_that_is_missing_is_said_in_readiness(store, clock):
    async with following(store) as (running, cluster):
        forbidden = [True]
        store.faults.insert(
            0,
            lambda request: (
                answer(403, status(403, "Forbidden", "no"))
                if request.method == "PATCH" and request.url.path.endswith("/status") and forbidden
                else None
            ),
        )
        cluster.annotator.take("n1", REPORT)
        await until(lambda: "patch pods/status" in running.reporting.readiness.render(0.0)[1])
        forbidden.clear()
        await until(lambda: "enrolment on pods" not in running.reporting.readiness.render(0.0)[1])


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("GET", f"{LEASES}/ztunnel-control", "election: not allowed to get leases.coordination.k8s.io"),
        ("POST", LEASES, "needs RBAC: create leases.coordination.k8s.io in namespace ztunnel-system"),
        (
            "PATCH",
            "/apis/security.istio.io/v1/namespaces/shop/authorizationpolicies/p/status",
            "status of objects: AuthorizationPolicy shop/p: not allowed to patch authorizationpolicies",
        ),
        (
            "GET",
            "/api/v1/namespaces/ztunnel-system/configmaps/ztunnel-last-good",
            "last good versions: not allowed to get configmaps ztunnel-last-good in namespace ztunnel-system",
        ),
    ],
)
async def test_each_right_that_is_missing_is_said_in_readiness_and_log(store, clock, method, path, said):
    """All but the first of these were known, and said nowhere: statuses were just never written."""
    policies = served_resource("AuthorizationPolicy")
    meta = {"name": "p", "namespace": "shop", "generation": 1}
    store.put(policies, {"metadata": meta, "spec": {"rules": [{}]}})
    forbidden = answer(403, status(403, "Forbidden", "no"))
    store.faults.insert(
        0, lambda asked: forbidden if (asked.method, asked.url.path) == (method, path) else None
    )
    async with following(store) as (running, _):
        await until(lambda: said in running.reporting.readiness.render(0.0)[1])
        assert running.written.with_word("not allowed to")


@pytest.mark.parametrize("key", ["ztunnel.io/not-ready", None])
async def test_a_taint_is_taken_off_nodes_whose_proxy_is_ready_where_one_is_named(store, clock, key):
    taint = {"key": "ztunnel.io/not-ready", "effect": "NoSchedule"}
    store.put(NODES, {"metadata": {"name": "n1"}, "spec": {"taints": [taint]}})
    labels = {"app.kubernetes.io/name": "ztunnel", "app.kubernetes.io/component": "node"}
    meta = {"name": "ztunnel-1", "namespace": HOME, "uid": "p", "labels": labels}
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    store.put(
        PODS,
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"nodeName": "n1"}, "status": ready},
    )

    def taints() -> list[object]:
        return store.objects[NODES.path()]["", "n1"]["spec"].get("taints") or []

    async with following(store, node_taint=key) as (running, _):
        await until(lambda: running.figures()["ztunnel_control_leader"] == [((), 1.0)])
        await trio.sleep(5)
        assert taints() == ([] if key else [taint])
