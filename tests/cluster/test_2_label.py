"""Claim 2: a label brings running pods into the mesh and out of it; in it nobody reads what they say."""

from __future__ import annotations

import re
import time
from datetime import datetime

import pytest

from tests.cluster.apps import HOLD, LOAD, PORT, Apps
from tests.cluster.cluster import Object, wait_until
from tests.cluster.conftest import Mesh
from tests.cluster.wire import Seen, as_text, capture, observer

pytestmark = pytest.mark.timeout(300)

ENROL_SECONDS = 2.0


def enrolled_at(mesh: Mesh, pod: str, after: float) -> float:
    """When a proxy said that this pod (namespace/name) was enrolled, after a time; 0 if it did not."""
    for line in mesh.logs("node").splitlines():
        if "pod enrolled" in line and f'pod="{pod}"' in line:
            found = re.match(r"(\S+Z)\s", line)
            assert found, line
            at = datetime.fromisoformat(found[1]).timestamp()
            if at > after:
                return at
    return 0.0


def shown(apps: Apps) -> dict[str, bool]:
    """Of the two pods, whether each is shown as enrolled."""
    found = {
        each["metadata"]["name"]: each["metadata"].get("annotations", {})
        for each in apps.cluster.pods(apps.namespace)
    }
    return {name: found[name].get("ambient.istio.io/redirection") == "enabled" for name in ("a", "b")}


def is_ours(pod: Object) -> bool:
    return "ztunnel.io/redirection" in pod["metadata"]["annotations"]


def seen_on_the_way(apps: Apps, nodes: tuple[str, str], server: str, addresses: list[str]) -> Seen:
    """What the wires of the second node carry while pod a calls the server at each address."""
    marker = f"marker-{time.monotonic_ns()}"
    with capture(apps, nodes[1], marker) as wire:
        for address in addresses:
            said = apps.call("a", address, path=f"/{marker}")
            assert said.get("pod") == server, said
        return wire.end()


def test_the_label_on_and_off_again_while_a_connection_lives(
    mesh: Mesh, apps: Apps, nodes: tuple[str, str]
) -> None:
    observer(mesh.cluster, apps, nodes[1])
    pods = (("a", nodes[0]), ("b", nodes[1]), ("c", nodes[0]), ("d", nodes[0]))
    apps.start(*(apps.server(name, node) for name, node in pods))
    addresses = apps.addresses("b")
    plain = seen_on_the_way(apps, nodes, "b", addresses)
    assert plain.readable > 0, as_text(plain)
    assert 15008 not in plain.ports, as_text(plain)

    with apps.running("a", HOLD, addresses[0], PORT) as held:
        with apps.running("c", LOAD, apps.addresses("d")[0], PORT, 0.001) as calls:
            before = time.time()
            apps.label("ambient")
            labelled = time.time()
            for name in ("a", "b", "c", "d"):
                pod = f"{apps.namespace}/{name}"
                at = wait_until(f"{pod} enrolled", lambda pod=pod: enrolled_at(mesh, pod, before), 20)
                print(f"{pod} enrolled {at - labelled:.3f} s after the label")
                assert at - labelled < ENROL_SECONDS
            assert calls.end()["errors"] == []
        wait_until("it is written on them", lambda: shown(apps) == {"a": True, "b": True}, 10)
        mutual = seen_on_the_way(apps, nodes, "b", addresses)
        assert mutual.readable == 0, as_text(mutual)
        assert mutual.tls > 0, as_text(mutual)
        identity = f"spiffe://cluster.local/ns/{apps.namespace}/sa/default"
        counted = {"source_principal": identity, "destination_workload": "b", "reporter": "destination"}
        counted |= {
            "connection_security_policy": "mutual_tls",
            "destination_workload_namespace": apps.namespace,
        }

        def opened() -> float:
            return mesh.count(nodes[1], "istio_tcp_connections_opened_total", **counted)

        wait_until("they are counted", lambda: opened() >= len(addresses), 10, 0.3)
        assert opened() == len(addresses)

        apps.label(None)
        wait_until("plain again", lambda: seen_on_the_way(apps, nodes, "b", addresses).readable > 0, 20)
        wait_until("that is taken off", lambda: shown(apps) == {"a": False, "b": False}, 10)
        again = seen_on_the_way(apps, nodes, "b", addresses)
        assert 15008 not in again.ports, as_text(again)
        said = held.end()
    assert said["sent"] > 50
    for name in ("a", "b"):
        [status] = apps.pod(name)["status"]["containerStatuses"]
        assert (status["restartCount"], status["ready"]) == (0, True)


def test_a_service_is_reached_through_its_address_and_name(
    mesh: Mesh, apps: Apps, nodes: tuple[str, str]
) -> None:
    apps.label("ambient")
    server = apps.server("b", nodes[1])
    server["metadata"]["annotations"] = {"ambient.istio.io/redirection": "enabled"}  # what an Istio has left
    apps.start(apps.server("a", nodes[0]), server, apps.service("web", "b"))
    wait_until("it says that it is ours", lambda: is_ours(apps.pod("b")), 10)
    for mode in (None, "ambient") * 3:  # quicker than anything follows it
        apps.label(mode)
    wait_until("both are shown as enrolled", lambda: shown(apps) == {"a": True, "b": True}, 10)
    observer(mesh.cluster, apps, nodes[1])
    for host in (*apps.service_addresses("web"), f"web.{apps.namespace}.svc.cluster.local"):
        marker = f"marker-{time.monotonic_ns()}"
        with capture(apps, nodes[1], marker) as wire:
            wait_until(
                f"{host} answers", lambda host=host, m=marker: "pod" in apps.call("a", host, 80, f"/{m}"), 20
            )
            seen = wire.end()
        assert seen.readable == 0, as_text(seen)
        assert seen.tls > 0, as_text(seen)
