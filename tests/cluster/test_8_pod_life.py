"""Pods as they live on Kubernetes: init containers, sidecars, jobs that end, names and addresses that come
again, evictions, restarts of containers, of the kubelet and of its runtime."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.cluster.apps import OPT_IN, PORT, Apps, namespace
from tests.cluster.cluster import Cluster, ClusterError, Object, is_ready, wait_until
from tests.cluster.conftest import Mesh
from tests.cluster.kit import give_next, is_taken, restart, static_pods
from tests.cluster.test_3_policy import allow, strict
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


@pytest.fixture(scope="module")
def other(mesh: Mesh, cluster: Cluster, nodes: tuple[str, str]) -> Iterator[Apps]:
    """Pod b on the last node, for all tests: it answers those alone who prove who they are, and calls."""
    with namespace(cluster, f"ztunnel-test-{os.getpid()}-other", {OPT_IN: "ambient"}) as apps:
        cluster.apply(strict(apps, "STRICT"))
        apps.start(apps.server("b", nodes[1]))
        yield apps


@pytest.fixture
def server(cluster: Cluster, apps: Apps, other: Apps) -> str:
    """The address of that pod. The test's own will be in the mesh, and as strict."""
    apps.label("ambient")
    cluster.apply(strict(apps, "STRICT"))
    return other.addresses("b")[0]


def test_every_container_of_a_job_is_in_the_mesh_and_the_job_ends(
    apps: Apps, nodes: tuple[str, str], server: str
) -> None:
    pod = caller(apps, "job", nodes[0], server)
    template = {"metadata": {"labels": pod["metadata"]["labels"]}, "spec": pod["spec"]}
    apps.cluster.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "job", "namespace": apps.namespace},
            "spec": {"backoffLimit": 0, "template": template},
        }
    )
    job = wait_until("it has ended", lambda: ended(apps, "job"), 90)
    assert job == "Complete"
    (made,) = apps.cluster.pods(apps.namespace, "job-name=job")
    name = made["metadata"]["name"]
    for container in ("init", "side", "server"):
        assert 0 in seen(apps, name, container)["all"], container
        assert set(seen(apps, name, container)["all"]) <= {0, errno.ECONNREFUSED}, container


def ended(apps: Apps, job: str) -> str:
    """`Complete` or `Failed`; empty while it runs."""
    conditions = apps.cluster.get("job", job, apps.namespace)["status"].get("conditions", [])
    met = [one["type"] for one in conditions if one["status"] == "True"]
    return next((one for one in met if one in ("Complete", "Failed")), "")


def test_a_pod_of_a_stateful_set_is_called_by_its_name_and_evicted(
    mesh: Mesh, apps: Apps, other: Apps, nodes: tuple[str, str], server: str
) -> None:
    """Through a headless service; evicted by the API, and as a kubelet does it: the object of the pod
    stays."""
    bound = apps.server("bound", nodes[0])
    bound["spec"] |= {"activeDeadlineSeconds": 8, "restartPolicy": "Never"}
    pod = apps.server("web", nodes[0])
    pod["spec"] |= {"nodeSelector": {"kubernetes.io/hostname": nodes[0]}}
    del pod["spec"]["nodeName"]
    named = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    pod["spec"]["containers"][0]["env"][0] = named
    service = apps.service("web", "web")
    service["spec"] |= {"clusterIP": "None"}
    template = {"metadata": {"labels": pod["metadata"]["labels"]}, "spec": pod["spec"]}
    apps.start(
        service,
        bound,
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "web", "namespace": apps.namespace},
            "spec": {
                "replicas": 1,
                "serviceName": "web",
                "selector": {"matchLabels": {"app": "web"}},
                "template": template,
            },
        },
    )
    host = f"web-0.web.{apps.namespace}.svc.cluster.local"

    def is_called() -> bool:
        return other.call("b", host).get("pod") == "web-0"

    def enrolled() -> str:
        """The UID of the pod that it is written on."""
        found = apps.cluster.pods(apps.namespace, "app=web")
        return next((one["metadata"]["uid"] for one in found if is_shown(one)), "")

    first = wait_until("it is in the mesh", enrolled, 60)
    wait_until("it is called by its name", is_called, 30)
    assert apps.call("web-0", server).get("pod") == "b"
    evict(apps, "web-0")
    wait_until("another one is in the mesh", lambda: enrolled() not in ("", first), 60)
    wait_until("that is called by its name", is_called, 30)
    assert apps.call("web-0", server).get("pod") == "b"

    wait_until("the other one's time is up", lambda: phase(apps, "bound") == "Failed", 60)
    states = json.loads(mesh.dump(nodes[0]))["workloadState"]
    assert [uid for uid in states if uid.endswith(f"/{apps.namespace}/bound")] == []
    apps.cluster.call("-n", apps.namespace, "delete", "pod", "bound", timeout=60)
    apps.start(apps.server("bound", nodes[0]))
    assert apps.call("bound", server).get("pod") == "b"


def is_shown(pod: Object) -> bool:
    return pod["metadata"].get("annotations", {}).get("ambient.istio.io/redirection") == "enabled"


def evict(apps: Apps, name: str) -> None:
    """As a drain does."""
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": apps.namespace},
    }
    path = f"/api/v1/namespaces/{apps.namespace}/pods/{name}/eviction"
    apps.cluster.call("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))


CALLS = """
import json, socket, sys, time
seen = {one: [] for one in sys.argv[2:]}
end = time.monotonic() + 15
# While its addresses are new, IPv6 may know no way yet, with a mesh or without: such a call takes its second.
while time.monotonic() < end and min(len(all) - all.count("TimeoutError") for all in seen.values()) < 200:
    for one in seen:
        try:
            with socket.create_connection((one, int(sys.argv[1])), 1) as client:
                client.sendall(b"GET /who HTTP/1.0\\r\\n\\r\\n")
                seen[one].append("answered" if client.recv(1) else "closed")
        except OSError as error:
            seen[one].append(type(error).__name__)
    time.sleep(0.002)
print(json.dumps({one: [sorted(set(all)), len(all)] for one, all in seen.items()}), flush=True)
time.sleep(3600)
"""


@pytest.mark.parametrize("old", ["deleted", "has ended"])
def test_an_address_that_comes_again_at_once_is_nobody_s_but_its_new_pod_s(
    mesh: Mesh, cluster: Cluster, apps: Apps, nodes: tuple[str, str], old: str
) -> None:
    """Who calls is judged by who it is now, across nodes and on its own, from its first act on. A pod that
    has ended goes on showing its address."""
    apps.label("ambient")
    apps.start(
        *(apps.account(name) for name in ("old", "new")),
        apps.server("b", nodes[1]),
        apps.server("c", nodes[0], {"app": "b"}),
        ends(apps.server("old", nodes[0], account="old")),
    )
    cluster.apply(strict(apps, "STRICT"), allow(apps, "old"))
    servers = [*apps.addresses("b"), *apps.addresses("c")]
    for address in servers:
        wait_until("it is allowed", lambda a=address: "pod" in apps.call("old", a), 20)
    before = apps.addresses("old")
    young = apps.server("new", nodes[0], account="new")
    young["spec"]["containers"].append(
        {
            **{name: young["spec"]["containers"][0][name] for name in ("image", "imagePullPolicy")},
            "name": "calls",
            "command": ["python3", "-I", "-S", "-c", CALLS, str(PORT), *servers],
        }
    )
    if old == "deleted":
        cluster.call("-n", apps.namespace, "delete", "pod", "old", "--grace-period=1", timeout=60)
    else:
        # Whoever runs it ends with the container.
        kill = "import os, signal; os.kill(1, signal.SIGINT)"
        with suppress(ClusterError):  # 137: the command, too, ends with its container
            cluster.call("-n", apps.namespace, "exec", "old", "--", "python3", "-c", kill)
        wait_until("it has ended", lambda: phase(apps, "old") in ("Failed", "Succeeded"), 60)
        assert apps.addresses("old") == before
    wait_until("its address is free", lambda: not is_taken(cluster, nodes[0], before), 30, 0)
    give_next(cluster, nodes[0], before)
    apps.start(young)
    assert sorted(apps.addresses("new")) == sorted(before)

    said = wait_until(
        "it has called", lambda: cluster.call("-n", apps.namespace, "logs", "new", "-c", "calls").strip(), 30
    )
    print(said)
    for address, (outcomes, count) in json.loads(said).items():
        assert set(outcomes) - {"TimeoutError"} == {"ConnectionRefusedError"}, (address, outcomes)
        assert count >= 200
    for address in before:  # whoever calls it proves that it is the new one
        wait_until("it is called", lambda a=address: apps.call("b", a).get("pod") == "new", 10)
    cluster.apply(allow(apps, "new"))
    for address in servers:
        wait_until("it is allowed", lambda a=address: "pod" in apps.call("new", a), 20)


def ends(pod: Object) -> Object:
    """One whose container is not started again."""
    pod["spec"]["restartPolicy"] = "Never"
    del pod["spec"]["containers"][0]["livenessProbe"]
    return pod


def test_a_pod_whose_sandbox_is_made_anew_is_in_the_mesh_again(
    cluster: Cluster, apps: Apps, other: Apps, nodes: tuple[str, str], server: str
) -> None:
    """Its sandbox dies, as when the machine starts anew: another namespace, maybe another address."""
    apps.start(apps.server("a", nodes[0]))
    assert apps.call("a", server).get("pod") == "b"
    own = namespace_of(apps, "a")
    look = 'for p in /proc/[0-9]*; do echo "$(readlink $p/ns/net) $(cat $p/comm) $p"; done 2>/dev/null; true'
    found = (line.split() for line in cluster.on_node(nodes[0], "sh", "-c", look).splitlines())
    (pause,) = [words[2] for words in found if words[:2] == [own, "pause"]]
    cluster.on_node(nodes[0], "kill", "-9", pause.removeprefix("/proc/"))

    def is_new() -> bool:
        try:
            return is_ready(apps.pod("a")) and namespace_of(apps, "a") != own
        except ClusterError:  # there is no container now
            return False

    wait_until("it has another one", is_new, 60, 0.3)
    wait_until("it is in the mesh", lambda: apps.call("a", server).get("pod") == "b", 10)
    for address in apps.addresses("a"):
        is_reached(other, "a", address)


def namespace_of(apps: Apps, pod: str) -> str:
    """As `net:[4026531840]`."""
    return apps.python(pod, "import os; print(os.readlink('/proc/self/ns/net'))").strip()


STEADY_SECONDS = 5.0
"""Three times as long as one failed probe would take to end a container here."""


def test_probes_and_enrolment_outlive_the_kubelet_and_its_runtime(
    mesh: Mesh, cluster: Cluster, apps: Apps, other: Apps, nodes: tuple[str, str], server: str
) -> None:
    """A probe that the new kubelet's fails is the end of its container. All is STRICT. The new kubelet runs a
    static pod as well, which it knows by another UID than the API."""
    assert mesh.cluster.kit
    probed = apps.server("a", nodes[0])
    probed["spec"]["containers"][0]["livenessProbe"] |= {"periodSeconds": 1, "failureThreshold": 1}
    apps.start(probed)
    assert apps.call("a", server).get("pod") == "b"
    with static_pods(nodes[0]) as make_static:
        make_static(apps.server("static", nodes[0]))
        for name in ("containerd", "kubelet"):
            restart(f"{nodes[0]}-{name}")
        outlives_them(apps, other, nodes[0], server)
        static = wait_until(
            "the static pod is in the mesh",
            lambda: next(filter(is_shown, cluster.pods(apps.namespace, "app=static")), None),
            30,
        )
        name = static["metadata"]["name"]
        for address in apps.addresses(name):
            is_reached(other, "static", address)
        assert apps.call(name, server).get("pod") == "b"


def outlives_them(apps: Apps, other: Apps, node: str, server: str) -> None:
    wait_until("the kubelet serves again", lambda: "error" not in called(apps, "a", server), 60, 0.5)

    def is_well() -> bool:
        status = apps.pod("a")["status"]["containerStatuses"][0]
        assert status["restartCount"] == 0
        return bool(status["ready"])

    wait_until("it is ready", is_well, 30)
    until = time.monotonic() + STEADY_SECONDS
    while time.monotonic() < until:
        is_well()
        assert other.call("b", apps.addresses("a")[0]).get("pod") == "a"
    apps.start(apps.server("later", node))
    for address in apps.addresses("later"):
        is_reached(other, "later", address)
    assert apps.call("later", server).get("pod") == "b"


def is_reached(other: Apps, pod: str, address: str) -> None:
    """Pod b's node may not know yet of one that has just started: it is called in plaintext then, and STRICT
    refuses that."""
    wait_until("it is known", lambda: other.call("b", address).get("pod") == pod, 5)


def called(apps: Apps, pod: str, address: str) -> dict[str, Any]:
    """As `call`, where the kubelet may be away."""
    try:
        return apps.call(pod, address)
    except ClusterError as error:
        return {"error": str(error)}


def test_a_pod_whose_name_comes_again_is_in_the_mesh_again(
    apps: Apps, other: Apps, nodes: tuple[str, str], server: str
) -> None:
    """As a StatefulSet's; the second time without waiting for the first one's end."""
    for force in ([], ["--force", "--grace-period=0"]):
        apps.start(apps.server("web-0", nodes[0]))
        assert apps.call("web-0", server).get("pod") == "b"
        apps.cluster.call("-n", apps.namespace, "delete", "pod", "web-0", *force, timeout=90)
    apps.start(apps.server("web-0", nodes[0]))
    assert apps.call("web-0", server).get("pod") == "b"
    is_reached(other, "web-0", apps.addresses("web-0")[0])


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
    assert set(seen(apps, "a", "server")["all"]) <= {0, errno.ECONNREFUSED}


def test_nobody_holds_the_namespace_of_a_pod_that_was_deleted(
    cluster: Cluster, apps: Apps, nodes: tuple[str, str], server: str
) -> None:
    """Neither a process by a descriptor, nor a mount."""
    apps.start(apps.server("a", nodes[0]))
    assert apps.call("a", server).get("pod") == "b"
    own = namespace_of(apps, "a")
    assert re.fullmatch(r"net:\[\d+\]", own)

    def holders() -> list[str]:
        words = "ls -l /proc/[0-9]*/fd /proc/[0-9]*/ns 2>/dev/null; true"
        return [line for line in cluster.on_node(nodes[0], "sh", "-c", words).splitlines() if own in line]

    assert holders()
    cluster.call("-n", apps.namespace, "delete", "pod", "a", timeout=60)
    wait_until("it is let go", lambda: not holders(), LET_GO_SECONDS)
