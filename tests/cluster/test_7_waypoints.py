"""Waypoints: run for a Gateway, attached, replaced and detached under load, and never called around."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.cluster.apps import LOAD, Apps, Running
from tests.cluster.cluster import Cluster, Object, is_ready, wait_until
from tests.cluster.conftest import SYSTEM, Mesh

pytestmark = pytest.mark.timeout(400)

NAME = "waypoint"
USE = "istio.io/use-waypoint"
LABEL = f"gateway.networking.k8s.io/gateway-name={NAME}"
SECONDS = 20
START_SECONDS = 60
EVERY_SECONDS = 0.03
KINDS = "deployments,services,serviceaccounts,poddisruptionbudgets"


@pytest.fixture
def shop(mesh: Mesh, apps: Apps, nodes: tuple[str, str]) -> Apps:
    """Pod a calls service web, whose pods are on both nodes."""
    apps.label("ambient")
    apps.start(
        apps.server("a", nodes[0]),
        apps.server("b", nodes[1], {"app": "b"}),
        apps.server("c", nodes[0], {"app": "b"}),
        apps.service("web", "b"),
    )
    for address in apps.service_addresses("web"):
        wait_until(f"{address} answers", lambda at=address: answers(apps, at), SECONDS)
    return apps


def answers(apps: Apps, address: str) -> bool:
    return "pod" in apps.call("a", address, 80)


def pods(shop: Apps) -> list[Object]:
    """The waypoint's, without those that are ending."""
    found = shop.cluster.pods(shop.namespace, LABEL)
    return [each for each in found if "deletionTimestamp" not in each["metadata"]]


def ready(shop: Apps, count: int) -> bool:
    found = [each for each in shop.cluster.pods(shop.namespace, LABEL) if is_ready(each)]
    return len(found) == count == len(pods(shop))


def requests(shop: Apps) -> float:
    """That the waypoint's pods have passed on."""
    total = 0.0
    for each in pods(shop):
        page = shop.cluster.scrape(each["metadata"]["name"], 15020, namespace=shop.namespace)
        total += sum(
            float(value) for value in re.findall(r"^istio_requests_total{.*} (\S+)$", page, re.MULTILINE)
        )
    return total


def bound(shop: Apps) -> tuple[str, str]:
    """Status and reason of what the service says of its waypoint."""
    found = shop.cluster.get("service", "web", shop.namespace)["status"].get("conditions", [])
    said = [each for each in found if each["type"] == "istio.io/WaypointBound"]
    return (said[0]["status"], said[0]["reason"]) if said else ("", "")


def apply(shop: Apps, *words: str) -> None:
    done = shop.cluster.ztunnel("waypoint", "apply", "-n", shop.namespace, *words)
    assert done.returncode == 0, done.stdout + done.stderr


def annotate(shop: Apps, **annotations: str) -> None:
    words = [f"ztunnel.io/{name}={value}" for name, value in annotations.items()]
    shop.cluster.call("-n", shop.namespace, "annotate", "gateway", NAME, "--overwrite", *words)


def detach(shop: Apps) -> None:
    shop.cluster.call("label", "namespace", shop.namespace, f"{USE}-")
    wait_until("it is detached", lambda: bound(shop) == ("", ""), SECONDS)


@contextmanager
def loaded(shop: Apps) -> Iterator[dict[str, Running]]:
    """Calls without end, by both families."""
    with ExitStack() as stack:
        yield {
            address: stack.enter_context(shop.running("a", LOAD, address, 80, EVERY_SECONDS))
            for address in shop.service_addresses("web")
        }


def test_attached_replaced_and_detached_under_load_no_request_fails(mesh: Mesh, shop: Apps) -> None:
    cluster, marks = shop.cluster, {}
    with loaded(shop) as load:
        apply(shop, "--enroll-namespace", "--wait")
        wait_until("calls go through it", lambda: requests(shop) > 20, SECONDS)
        assert bound(shop) == ("True", "WaypointAccepted")
        marks["attached"] = requests(shop)
        annotate(shop, replicas="2")
        wait_until("there are two", lambda: ready(shop, 2), START_SECONDS)
        before, revision = names(shop), generation(shop)
        cluster.call("-n", SYSTEM, "rollout", "restart", "deployment/ztunnel-control")
        mesh.wait()
        assert (names(shop), generation(shop)) == (before, revision), "another control plane changes nothing"
        cluster.call("-n", shop.namespace, "delete", "pod", min(before), "--wait=false")
        wait_until("there are two again", lambda: ready(shop, 2), START_SECONDS)
        template = {"metadata": {"annotations": {"again": "yes"}}}
        words = ("patch", "deployment", NAME, "-p", json.dumps({"spec": {"template": template}}))
        cluster.call("-n", shop.namespace, *words)
        wait_until("both are others", lambda: ready(shop, 2) and not before & names(shop), START_SECONDS)
        wait_until("calls go through them", lambda: requests(shop) > 20, SECONDS)
        detach(shop)
        marks["detached"] = requests(shop)
        done = cluster.ztunnel("waypoint", "delete", NAME, "-n", shop.namespace)
        assert done.returncode == 0, done.stdout + done.stderr
        wait_until("what was made for it is gone", lambda: not made(shop), SECONDS)
        said = {address: each.end() for address, each in load.items()}
    print(marks, {address: (each["seen"], each["failed"], each["slowest"]) for address, each in said.items()})
    assert {address: each["errors"] for address, each in said.items() if each["failed"]} == {}
    assert min(each["seen"] for each in said.values()) > 200


def generation(shop: Apps) -> int:
    return int(shop.cluster.get("deployment", NAME, shop.namespace)["metadata"]["generation"])


def names(shop: Apps) -> set[str]:
    return {each["metadata"]["name"] for each in pods(shop)}


def made(shop: Apps) -> list[str]:
    words = ("get", KINDS, "-n", shop.namespace, "-l", LABEL, "-o", "name")
    return shop.cluster.call(*words).split()


def test_until_it_was_ready_calls_go_as_before_and_from_then_on_by_it_or_not_at_all(
    mesh: Mesh, shop: Apps, cluster: Cluster
) -> None:
    addresses = shop.service_addresses("web")
    apply(shop, "--enroll-namespace")
    annotate(shop, replicas="0")
    wait_until("it has no pod", lambda: not pods(shop), START_SECONDS)
    if bound(shop) != ("True", "WaypointAccepted"):  # a pod may have been quicker than the annotation
        assert bound(shop) == ("False", "WaypointIsNotReady")
        for address in addresses:
            assert answers(shop, address)
    annotate(shop, replicas="1")
    wait_until("it is attached", lambda: bound(shop) == ("True", "WaypointAccepted"), START_SECONDS)
    wait_until("it is called", lambda: answers(shop, addresses[0]) and requests(shop) > 0, SECONDS)

    # What somebody changes is put right.
    cluster.call("-n", shop.namespace, "delete", "deployment", NAME, "--wait=false")
    wait_until("it is there again", lambda: ready(shop, 1), START_SECONDS)
    for address in addresses:
        wait_until("it is called again", lambda at=address: answers(shop, at), SECONDS)

    annotate(shop, replicas="0")
    wait_until("it has no pod", lambda: not cluster.pods(shop.namespace, LABEL), START_SECONDS)
    for address in addresses:
        wait_until("calls are refused", lambda at=address: not answers(shop, at), SECONDS)
    done = cluster.ztunnel("waypoint", "delete", "--all", "-n", shop.namespace)
    assert (done.returncode, USE in done.stderr) == (1, True), done.stdout + done.stderr
    done = cluster.ztunnel("waypoint", "delete", "--all", "--force", "-n", shop.namespace)
    assert done.returncode == 0, done.stderr
    wait_until("it is said", lambda: bound(shop) == ("False", "WaypointMissing"), SECONDS)
    before = {each["metadata"]["name"] for each in mesh.pods("control")}
    cluster.call("-n", SYSTEM, "delete", "pod", *before, "--wait=false")
    mesh.wait()
    wait_until(
        "every node proxy has taken over what they serve",
        lambda: cluster.ztunnel("proxy-status").returncode == 0,
        START_SECONDS,
    )
    for address in addresses:
        assert not answers(shop, address), "control planes that have never seen the Gateway refuse as well"
    detach(shop)
    for address in addresses:
        wait_until("calls go as before", lambda at=address: answers(shop, at), SECONDS)
