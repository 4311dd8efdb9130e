"""What ServiceEntries and Gateways come to: called, refused where they claim what is another's, and said in
their statuses; and whether every node has taken that over."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.apps import PORT, Apps, namespace
from tests.cluster.cluster import Cluster, Object, wait_until
from tests.cluster.conftest import Mesh

pytestmark = pytest.mark.timeout(300)

SECONDS = 15
VIRTUAL = {4: "198.51.100.77", 6: "2001:db8::77"}
REACH = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


def service_entry(where: str, name: str, **spec: Any) -> Object:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": name, "namespace": where},
        "spec": {
            "resolution": "STATIC",
            "ports": [{"number": PORT, "name": "http", "protocol": "HTTP"}],
            **spec,
        },
    }


def conditions(cluster: Cluster, kind: str, name: str, where: str) -> dict[str, tuple[str, str, str]]:
    """Status, reason and message by type."""
    found = cluster.get(kind, name, where).get("status", {}).get("conditions", [])
    return {each["type"]: (each["status"], each["reason"], each.get("message", "")) for each in found}


def test_an_entry_is_called_at_the_pods_that_it_selects_and_takes_nothing_of_others(
    mesh: Mesh, cluster: Cluster, apps: Apps, nodes: tuple[str, str]
) -> None:
    apps.label("ambient")
    apps.start(apps.server("a", nodes[0]), apps.server("b", nodes[1]), apps.service("b", "b"))
    versions = {6 if ":" in each else 4 for each in apps.addresses("a")}
    virtual = [VIRTUAL[each] for each in sorted(versions)]
    cluster.apply(
        service_entry(
            apps.namespace, "inside", hosts=["inside.example"], addresses=virtual,
            workloadSelector={"labels": {"app": "b"}},
        )
    )  # fmt: skip
    for address in virtual:
        wait_until(f"{address} is b", lambda at=address: apps.call("a", at).get("pod") == "b", SECONDS)

    addresses = apps.service_addresses("b")
    host = f"b.{apps.namespace}.svc.cluster.local"
    with namespace(cluster, f"{apps.namespace}-thief") as thief:
        greedy = service_entry(
            thief.namespace, "greedy", hosts=[host, "greedy.example"], addresses=addresses,
            endpoints=[{"address": "192.0.2.1"}],
        )  # fmt: skip
        cluster.apply(greedy)
        found = wait_until(
            "the claim is refused",
            lambda: conditions(cluster, "serviceentry", "greedy", thief.namespace).get("ZtunnelAccepted"),
            SECONDS,
        )
        assert found[:2] == ("False", "Conflicted")
        for text in (host, *addresses):
            assert text in found[2]
        for address in addresses:
            assert apps.call("a", address, 80).get("pod") == "b"


def test_a_gateway_that_is_served_by_hand_and_whoever_names_it_say_how_they_are(
    mesh: Mesh, cluster: Cluster, apps: Apps, nodes: tuple[str, str]
) -> None:
    if "gatewayclasses" not in cluster.call("api-resources", "--api-group=gateway.networking.k8s.io"):
        pytest.fail("the cluster lacks the CustomResourceDefinitions of the Gateway API")
    listener = {"name": "mesh", "port": 15008, "protocol": "HBONE"}
    host = f"wp.{apps.namespace}.svc.cluster.local"
    gateway = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "wp", "namespace": apps.namespace},
        "spec": {
            "gatewayClassName": "ztunnel-waypoint",
            "addresses": [{"type": "Hostname", "value": host}],
            "listeners": [listener],
        },
    }
    web, waypoint = apps.service("web", "web"), apps.service("wp", "wp")
    web["metadata"]["labels"] = {"istio.io/use-waypoint": "wp"}
    waypoint["spec"]["ports"] = [{"name": "mesh", "port": 15008}]

    def of(kind: str, name: str, what: str) -> tuple[str, str]:
        return conditions(cluster, kind, name, apps.namespace).get(what, ("", "", ""))[:2]

    cluster.apply(gateway, web)
    wait_until(
        "it waits", lambda: of("gateway", "wp", "Programmed") == ("False", "AddressNotAssigned"), SECONDS
    )
    bound = "istio.io/WaypointBound"
    wait_until(
        "so does the service", lambda: of("service", "web", bound) == ("False", "WaypointIsNotReady"), SECONDS
    )
    cluster.apply(waypoint)
    wait_until(
        "it waits for a pod", lambda: of("gateway", "wp", "Programmed") == ("False", "Pending"), SECONDS
    )
    apps.start(apps.server("wp", nodes[0]))
    wait_until(
        "it is programmed", lambda: of("gateway", "wp", "Programmed") == ("True", "Programmed"), SECONDS
    )
    wait_until("it is bound", lambda: of("service", "web", bound) == ("True", "WaypointAccepted"), SECONDS)
    [address] = cluster.get("gateway", "wp", apps.namespace)["status"]["addresses"]
    assert address["value"] == host
    assert "wp" not in [
        each["metadata"]["name"] for each in cluster.get("deployments", namespace=apps.namespace)["items"]
    ]


def test_every_node_has_taken_over_what_is_served_and_only_the_pods_own_loopback_is_told(
    mesh: Mesh, cluster: Cluster, apps: Apps, nodes: tuple[str, str]
) -> None:
    done = wait_until(
        "every node proxy is synced",
        lambda: found if (found := cluster.ztunnel("proxy-status")).returncode == 0 else None,
        60,
    )
    rows = done.stdout.splitlines()[1:]
    assert len(rows) == len(mesh.pods("node"))
    assert all(row.count("SYNCED") == 2 for row in rows)
    apps.start(apps.server("a", nodes[0]))
    [control, *_] = mesh.pods("control")
    ip = control["status"]["podIP"]
    url = f"http://{f'[{ip}]' if ':' in ip else ip}:15014"
    assert apps.python("a", REACH, f"{url}/metrics").strip() == "200"
    assert apps.python("a", REACH, f"{url}/debug/syncz").strip() == "403"
