"""Pods as they live on Kubernetes: init containers, sidecars, jobs that end, names that come again,
restarts."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.cluster.apps import PORT, Apps
from tests.cluster.cluster import Cluster, Object, wait_until
from tests.cluster.conftest import Mesh
from tests.cluster.test_3_policy import strict
from tests.cluster.test_8_storm import FIRST_ACT

pytestmark = pytest.mark.timeout(300)

LET_GO_SECONDS = 5
"""A deleted pod's namespace is let go two seconds after its last process, and looked for here every 0.1 s."""


def caller(apps: Apps, name: str, node: str, address: str) -> Object:
    """A pod whose init container, native sidecar and container each call as their first act. It ends."""
    pod = apps.server(name, node)
    pod["spec"]["restartPolicy"] = "Never"
    main = pod["spec"]["containers"][0]
    for unused in ("readinessProbe", "livenessProbe", "ports"):
        del main[unused]
    call = ["python3", "-I", "-S", "-c", FIRST_ACT, address, str(PORT)]
    main["command"] = call
    side = ["python3", "-I", "-S", "-c", f"{FIRST_ACT}\nsys.stdout.flush(); time.sleep(60)", *call[5:]]
    pod["spec"]["initContainers"] = [
        {**main, "name": "init"},
        {**main, "name": "side", "restartPolicy": "Always", "command": side},
    ]
    return pod


def phase(apps: Apps, name: str) -> str:
    return str(apps.pod(name)["status"].get("phase", ""))


def seen(apps: Apps, name: str, container: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(apps.cluster.call("-n", apps.namespace, "logs", name, "-c", container))
    return found


@pytest.fixture
def server(mesh: Mesh, cluster: Cluster, apps: Apps, nodes: tuple[str, str]) -> str:
    """The address of somebody who answers those alone who prove who they are."""
    apps.label("ambient")
    apps.start(apps.server("b", nodes[1]))
    cluster.apply(strict(apps, "STRICT"))
    return apps.addresses("b")[0]


def test_every_container_of_a_pod_is_in_the_mesh_and_the_pod_may_end(
    apps: Apps, nodes: tuple[str, str], server: str
) -> None:
    apps.cluster.apply(caller(apps, "job", nodes[0], server))
    wait_until("it has ended", lambda: phase(apps, "job") == "Succeeded", 90)
    for container in ("init", "side", "server"):
        assert 0 in seen(apps, "job", container)["all"], container
        assert set(seen(apps, "job", container)["all"]) <= {0, 111}, container


def test_a_pod_whose_name_comes_again_is_in_the_mesh_again(
    apps: Apps, nodes: tuple[str, str], server: str
) -> None:
    """As a StatefulSet's; the second time without waiting for the first one's end."""
    for force in ([], ["--force", "--grace-period=0"]):
        apps.start(apps.server("web-0", nodes[0]))
        assert apps.call("web-0", server).get("pod") == "b"
        apps.cluster.call("-n", apps.namespace, "delete", "pod", "web-0", *force, timeout=90)
    apps.start(apps.server("web-0", nodes[0]))
    assert apps.call("web-0", server).get("pod") == "b"
    assert apps.call("b", apps.addresses("web-0")[0]).get("pod") == "web-0"


def test_a_container_that_starts_again_is_in_the_mesh(
    apps: Apps, nodes: tuple[str, str], server: str
) -> None:
    pod = caller(apps, "a", nodes[0], server)
    pod["spec"]["restartPolicy"] = "Always"
    del pod["spec"]["initContainers"]
    apps.cluster.apply(pod)

    def ends() -> int:
        states = apps.pod("a")["status"].get("containerStatuses", [{}])
        return int(states[0].get("restartCount", 0)) + ("terminated" in states[0].get("state", {}))

    wait_until("it has ended twice", lambda: ends() >= 2, 90)
    assert 0 in seen(apps, "a", "server")["all"]
    assert set(seen(apps, "a", "server")["all"]) <= {0, 111}


def test_nobody_holds_the_namespace_of_a_pod_that_was_deleted(
    cluster: Cluster, apps: Apps, nodes: tuple[str, str], server: str
) -> None:
    """Neither a process by a descriptor, nor a mount."""
    apps.start(apps.server("a", nodes[0]))
    assert apps.call("a", server).get("pod") == "b"
    own = apps.cluster.call("-n", apps.namespace, "exec", "a", "--", "readlink", "/proc/self/ns/net").strip()
    assert re.fullmatch(r"net:\[\d+\]", own)

    def holders() -> list[str]:
        words = "ls -l /proc/[0-9]*/fd /proc/[0-9]*/ns 2>/dev/null; true"
        return [line for line in cluster.on_node(nodes[0], "sh", "-c", words).splitlines() if own in line]

    assert holders()
    cluster.call("-n", apps.namespace, "delete", "pod", "a", timeout=60)
    wait_until("it is let go", lambda: not holders(), LET_GO_SECONDS)
