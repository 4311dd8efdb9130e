"""Claim 4: who has no label, kube-system, probes and services go on as if nothing were there."""

from __future__ import annotations

import json

import pytest

from tests.cluster.apps import LOAD, PORT, Apps, namespace
from tests.cluster.cluster import Cluster, is_ready
from tests.cluster.conftest import Mesh
from tests.cluster.wire import as_text, capture, observer

pytestmark = pytest.mark.timeout(300)

RESOLVE = """
import socket, sys
print(*sorted({each[4][0] for each in socket.getaddrinfo(sys.argv[1], 80, type=socket.SOCK_STREAM)}))
"""


def test_pods_without_the_label_talk_as_ever(
    mesh: Mesh, cluster: Cluster, apps: Apps, nodes: tuple[str, str]
) -> None:
    apps.start(apps.server("a", nodes[0]), apps.server("b", nodes[1]), apps.service("web", "b"))
    observer(cluster, apps, nodes[1])
    with (
        capture(apps, nodes[1], "GET /who") as wire,
        apps.running("a", LOAD, apps.addresses("b")[0], PORT, 0.02) as load,
    ):
        for address in apps.service_addresses("web"):
            assert apps.call("a", address, 80)["pod"] == "b"
        name = f"web.{apps.namespace}.svc.cluster.local"
        assert apps.python("a", RESOLVE, name).split() == sorted(apps.service_addresses("web"))
        seen, said = wire.end(), load.end()
    assert said["failed"] == 0, said
    assert seen.readable >= said["seen"], as_text(seen)
    assert 15008 not in seen.ports, as_text(seen)
    assert apps.namespace not in mesh.logs("node")
    assert not [each for each in apps.cluster.pods(apps.namespace) if "redirection" in str(each["metadata"])]


def test_the_system_and_names_work_for_pods_of_the_mesh_too(
    mesh: Mesh, cluster: Cluster, apps: Apps, nodes: tuple[str, str]
) -> None:
    apps.label("ambient")
    apps.start(apps.server("a", nodes[0]), apps.service("web", "a"))
    assert apps.python("a", RESOLVE, f"web.{apps.namespace}.svc.cluster.local").split() == sorted(
        apps.service_addresses("web")
    )
    assert all(is_ready(each) for each in cluster.pods("kube-system", "k8s-app=kube-dns"))
    # To whom is not in the mesh, and from there.
    with namespace(cluster, f"{apps.namespace}-out") as outside:
        outside.start(outside.server("x", nodes[1]))
        for address in outside.addresses("x"):
            assert apps.call("a", address)["pod"] == "x"
        for address in apps.addresses("a"):
            assert outside.call("x", address)["pod"] == "a"
    # The node itself, as a hostNetwork client and as kubelet.
    here = observer(cluster, apps, nodes[0])
    for address in apps.addresses("a"):
        assert apps.call(here, address)["pod"] == "a"
    [status] = apps.pod("a")["status"]["containerStatuses"]
    assert (status["restartCount"], status["ready"]) == (0, True)


def test_a_pod_with_a_sidecar_is_left_alone_which_is_said(
    mesh: Mesh, cluster: Cluster, apps: Apps, nodes: tuple[str, str]
) -> None:
    apps.label("ambient")
    server = apps.server("s", nodes[1])
    server["metadata"]["annotations"] = {"sidecar.istio.io/status": "{}"}
    apps.start(apps.server("a", nodes[0]), server)
    assert apps.call("a", apps.addresses("s")[0])["pod"] == "s"
    states = json.loads(mesh.dump(nodes[1]))["workloadState"]
    shown = states[f"Kubernetes//Pod/{apps.namespace}/s"]
    assert (shown["state"], shown["reason"]) == ("LeftAlone", "it has a sidecar")
    ready = cluster.scrape(cluster.proxy_on(nodes[1]), 15021, "/healthz/ready")
    assert f"{apps.namespace}/s: it has a sidecar" in ready
