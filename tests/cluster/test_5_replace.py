"""Claim 5: node proxies and control planes are replaced under load, and killed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.cluster.apps import HOLD, LOAD, OPT_IN, PORT, STEADY, Apps, namespace
from tests.cluster.cluster import CHART, Cluster, wait_until
from tests.cluster.conftest import SYSTEM, Mesh
from tests.cluster.kit import kill
from tests.cluster.test_3_policy import answered, strict

pytestmark = pytest.mark.timeout(400)

EVERY_SECONDS = 0.02

# The container sees the node's processes: its own is known by its cgroup.
KILL = """
import os, signal
mine = open("/proc/self/cgroup").read()
for name in os.listdir("/proc"):
    if name.isdigit() and int(name) != os.getpid():
        try:
            command = open(f"/proc/{name}/cmdline").read().split(chr(0))
            if open(f"/proc/{name}/cgroup").read() == mine and "node" in command:
                os.kill(int(name), signal.SIGKILL)
        except OSError:
            continue
"""


@pytest.fixture(scope="module")
def started(mesh: Mesh, cluster: Cluster, nodes: tuple[str, str]) -> Iterator[Apps]:
    with namespace(cluster, f"ztunnel-test-{os.getpid()}-replace", {OPT_IN: "ambient"}) as apps:
        apps.start(apps.server("a", nodes[0]), apps.server("b", nodes[1]), apps.server("c", nodes[0]))
        yield apps


@pytest.fixture(scope="module")
def outside(mesh: Mesh, cluster: Cluster, nodes: tuple[str, str]) -> Iterator[Apps]:
    """Pod x, which proves no identity."""
    with namespace(cluster, f"ztunnel-test-{os.getpid()}-replace-out") as apps:
        apps.start(apps.server("x", nodes[1]))
        yield apps


@pytest.fixture
def talking(cluster: Cluster, started: Apps) -> Iterator[Apps]:
    """Pod a calls b on the other node and c on its own. They outlive each test, and its policy does not."""
    for name in ("b", "c"):
        [address, *_] = started.addresses(name)
        wait_until(f"{name} answers", lambda a=address: answered(started, "a", a), 20)
    yield started
    cluster.delete("peerauthentication", "default", started.namespace)


def replace(mesh: Mesh, what: str) -> None:
    """Every pod of it, as an upgrade does."""
    change = f'{{"spec":{{"template":{{"metadata":{{"annotations":{{"again":"{time.time()}"}}}}}}}}}}'
    mesh.cluster.call("-n", SYSTEM, "patch", what, "-p", change)
    mesh.wait()


@pytest.mark.parametrize("what", ["daemonset/ztunnel", "deployment/ztunnel-control"])
def test_a_rolling_update_under_load_fails_no_request(mesh: Mesh, talking: Apps, what: str) -> None:
    across, beside = talking.addresses("b")[0], talking.addresses("c")[0]
    with (
        talking.running("a", LOAD, across, PORT, EVERY_SECONDS) as to_other_node,
        talking.running("a", LOAD, beside, PORT, EVERY_SECONDS) as on_the_node,
        talking.running("a", HOLD, beside, PORT) as direct,
    ):
        replace(mesh, what)
        said = {"across": to_other_node.end(), "beside": on_the_node.end()}
        assert direct.end()["sent"] > 50
    print(said)
    assert {way: each["failed"] for way, each in said.items()} == {"across": 0, "beside": 0}, said
    assert min(each["seen"] for each in said.values()) > 100


@pytest.fixture
def one_after_the_other(mesh: Mesh) -> Iterator[None]:
    """The next proxy starts when the last has ended, as where a cluster forbids a surge."""

    def change(surge: int) -> None:
        rolling = {"maxSurge": surge, "maxUnavailable": 1 - surge}
        strategy = {"spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}}
        mesh.cluster.call("-n", SYSTEM, "patch", "daemonset/ztunnel", "-p", json.dumps(strategy))

    change(0)
    yield
    change(1)
    mesh.wait()


def test_replaced_one_after_the_other_no_new_connection_fails(
    mesh: Mesh, talking: Apps, one_after_the_other: None
) -> None:
    across, beside = talking.addresses("b"), talking.addresses("c")[0]
    with ExitStack() as stack:
        ways = {
            **{
                f"across to {one}": talking.running("a", STEADY, one, PORT, EVERY_SECONDS, 30)
                for one in across
            },
            "beside": talking.running("a", STEADY, beside, PORT, EVERY_SECONDS, 30),
            "in": talking.running("b", STEADY, talking.addresses("a")[0], PORT, EVERY_SECONDS, 30),
        }
        running = {way: stack.enter_context(one) for way, one in ways.items()}
        direct = stack.enter_context(talking.running("a", HOLD, beside, PORT))
        replace(mesh, "daemonset/ztunnel")
        said = {way: one.end(60) for way, one in running.items()}
        assert direct.end()["sent"] > 50
    print({way: (each["seen"], each["failed"], round(each["slowest"], 1)) for way, each in said.items()})
    assert {way: each["errors"] for way, each in said.items() if each["failed"]} == {}
    assert min(each["seen"] for each in said.values()) > 500


def names_of_proxies(mesh: Mesh) -> set[str]:
    return {each["metadata"]["name"] for each in mesh.pods("node")}


def test_a_daemon_set_that_is_replaced_by_force_frees_nobody(
    mesh: Mesh, talking: Apps, outside: Apps
) -> None:
    """As by tools that delete what they cannot patch: it is gone for a moment, and its pods at once. A pod
    that was let go would answer whoever proves no identity."""
    cluster = mesh.cluster
    before = names_of_proxies(mesh)
    only_a = strict(talking, "STRICT")
    only_a["spec"]["selector"] = {"matchLabels": {"app": "a"}}
    cluster.apply(only_a)
    daemon_set = cluster.get("daemonset", "ztunnel", SYSTEM)
    kept = ("name", "namespace", "labels", "annotations")
    daemon_set["metadata"] = {name: daemon_set["metadata"].get(name, {}) for name in kept}
    daemon_set.pop("status")
    own = talking.addresses("a")[0]
    wait_until("plaintext is refused", lambda: not answered(outside, "x", own), 20)
    # The proxy carries the first call after a change of policy itself, and the kernel the next ones.
    beside = talking.addresses("c")[0]
    wait_until("the verdict about c is known", lambda: answered(talking, "a", beside), 20)
    with (
        talking.running("a", STEADY, talking.addresses("b")[0], PORT, EVERY_SECONDS, 45) as across,
        talking.running("a", HOLD, beside, PORT) as direct,
        outside.running("x", LOAD, own, PORT, EVERY_SECONDS) as stranger,
    ):
        cluster.call("replace", "--force", "-f", "-", stdin=json.dumps(daemon_set), timeout=120)
        mesh.wait()
        # The new one's pods may be ready before the last of the old ones has gone.
        wait_until("the pods of before are gone", lambda: not before & names_of_proxies(mesh), 60)
        said, refused = across.end(90), stranger.end()
        assert direct.end()["sent"] > 50
    print({name: (said[name], refused[name]) for name in ("seen", "failed", "slowest")})
    assert said["errors"] == []
    assert refused["failed"] == refused["seen"] > 50
    assert "pods leave the mesh" not in mesh.logs("holder")


def test_an_upgrade_by_helm_and_its_rollback_fail_no_request(mesh: Mesh, talking: Apps) -> None:
    helm = mesh.cluster.call_helm
    words = ("upgrade", "ztunnel", CHART, "-n", SYSTEM, "--reuse-values", "--set")
    with (
        talking.running("a", LOAD, talking.addresses("b")[0], PORT, EVERY_SECONDS) as across,
        talking.running("a", LOAD, talking.addresses("c")[0], PORT, EVERY_SECONDS) as beside,
    ):
        # The second one cannot start, and takes nothing over.
        helm(*words, "node.podAnnotations.upgrade=one")
        mesh.wait()
        helm(*words, "node.env.CONNECTION_TERMINATION_DEADLINE=soon")
        wait_until(
            "it crashes",
            lambda: any(
                one.get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff"
                for each in mesh.pods("node")
                for one in each["status"].get("containerStatuses", [])
            ),
            90,
        )
        helm("rollback", "ztunnel", "-n", SYSTEM)
        mesh.wait()
        said = {"across": across.end(), "beside": beside.end()}
    print(said)
    assert {way: each["failed"] for way, each in said.items()} == {"across": 0, "beside": 0}, said
    assert min(each["seen"] for each in said.values()) > 100


def test_killed_control_planes_are_not_noticed_and_come_back(
    mesh: Mesh, cluster: Cluster, talking: Apps, outside: Apps
) -> None:
    """All of them at once, in the middle of load: what is in force stays so, and what changes afterwards
    comes into force."""
    assert cluster.kit
    across, own = talking.addresses("b")[0], talking.addresses("a")[0]

    def restarts() -> dict[str, int]:
        """Of each container."""
        return {
            each["metadata"]["name"]: each["status"]["containerStatuses"][0]["restartCount"]
            for each in mesh.pods("control")
        }

    cluster.apply(strict(talking, "STRICT"))
    wait_until("plaintext is refused", lambda: not answered(outside, "x", own), 20)
    before = restarts()
    with (
        talking.running("a", LOAD, across, PORT, EVERY_SECONDS) as load,
        outside.running("x", LOAD, own, PORT, EVERY_SECONDS) as stranger,
    ):
        for each in mesh.pods("control"):
            kill(cluster, each, "control")
        again = {name: count + 1 for name, count in before.items()}
        wait_until("they were started again", lambda: restarts() == again, 60)
        mesh.wait()
        said, refused = load.end(), stranger.end()
    cluster.apply(strict(talking, "PERMISSIVE"))
    wait_until("a change is in force", lambda: answered(outside, "x", own), 20)
    print({name: (said[name], refused[name]) for name in ("seen", "failed", "slowest")})
    assert said["errors"] == []
    assert refused["failed"] == refused["seen"] > 20


def test_killed_proxies_enforce_and_come_back(
    mesh: Mesh, cluster: Cluster, talking: Apps, outside: Apps, nodes: tuple[str, str]
) -> None:
    """Whoever proves no identity is answered at no moment; new calls wait for the next proxy, or are
    refused."""
    across, beside = talking.addresses("b")[0], talking.addresses("c")[0]
    proxy = cluster.proxy_on(nodes[0])

    def restarts() -> int:
        statuses = cluster.get("pod", proxy, SYSTEM)["status"]["containerStatuses"]
        return int(statuses[0]["restartCount"])

    # Of pod a alone: what c takes is to stay a direct flow.
    only_a = strict(talking, "STRICT")
    only_a["spec"]["selector"] = {"matchLabels": {"app": "a"}}
    cluster.apply(only_a)
    own = talking.addresses("a")[0]
    wait_until("plaintext is refused", lambda: not answered(outside, "x", own), 20)
    # The proxy carries the first call after a change of policy itself, and the kernel the next ones.
    wait_until("the verdict about c is known", lambda: answered(talking, "a", beside), 20)
    before = restarts()
    with (
        talking.running("a", HOLD, beside, PORT) as direct,
        outside.running("x", LOAD, own, PORT, EVERY_SECONDS) as stranger,
    ):
        cluster.call("-n", SYSTEM, "exec", proxy, "--", "python3", "-c", KILL, check=False)
        wait_until("it was started again", lambda: restarts() == before + 1, 60)
        wait_until("it is back", lambda: answered(talking, "a", across), 60)
        assert direct.end()["sent"] > 20
        said = stranger.end()
    print({name: said[name] for name in ("seen", "failed", "slowest")})
    assert said["failed"] == said["seen"] > 0
