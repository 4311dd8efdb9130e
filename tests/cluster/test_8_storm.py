"""Claim 8: of fifty pods that start at once, and whose first act is a call, none calls before it is
enrolled."""

from __future__ import annotations

import errno
import json
import re
from typing import Any

import pytest

from tests.cluster.apps import PORT, Apps
from tests.cluster.cluster import Cluster, Object, wait_until
from tests.cluster.conftest import Mesh
from tests.cluster.test_3_policy import strict

pytestmark = pytest.mark.timeout(400)

PODS = 50
SECONDS = "ztunnel_pod_enroll_seconds"

FIRST_ACT = """
import socket, sys, time
began = time.monotonic()
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
seen = []
while time.monotonic() - began < 120:
    with socket.socket(family) as client:
        client.settimeout(10)
        try:
            client.connect((sys.argv[1], int(sys.argv[2])))
            client.sendall(b"GET /who HTTP/1.0\\r\\n\\r\\n")
            seen.append(0 if client.recv(1) else -1)
        except OSError as error:
            seen.append(error.errno or -2)
    if seen[-1] == 0:
        break
    time.sleep(0.002)
import json
print(json.dumps({"first": seen[0], "all": sorted(set(seen)), "tries": len(seen)}))
"""


def eager(apps: Apps, number: int, node: str, address: str) -> Object:
    """A pod that calls as its first act, until it is answered, and then has ended."""
    pod = apps.server(f"eager-{number}", node)
    pod["metadata"]["labels"] = {"app": "eager"}
    pod["spec"]["restartPolicy"] = "Never"
    container = pod["spec"]["containers"][0]
    for unused in ("readinessProbe", "livenessProbe", "ports"):
        del container[unused]
    container["command"] = ["python3", "-I", "-S", "-c", FIRST_ACT, address, str(PORT)]
    return pod


def outcomes(apps: Apps) -> dict[str, dict[str, Any]]:
    """What each of them has seen, once all have ended."""

    def ended() -> bool:
        pods = apps.cluster.pods(apps.namespace, "app=eager")
        return len(pods) == PODS and all(
            each["status"].get("phase") in ("Succeeded", "Failed") for each in pods
        )

    wait_until("all have ended", ended, 240, 1.0)
    words = ("-n", apps.namespace, "logs", "-l", "app=eager", "--prefix", "--tail=1", "--max-log-requests=60")
    found = {}
    for line in apps.cluster.call(*words).splitlines():
        said = re.match(r"\[pod/(eager-\d+)/server\] (\{.*\})$", line)
        assert said, line
        found[said[1]] = json.loads(said[2])
    return found


def buckets(mesh: Mesh, nodes: set[str]) -> dict[float, float]:
    """How many pods were enrolled within so many seconds of their first process, on all nodes."""
    found: dict[float, float] = {}
    for node in nodes:
        for line in mesh.cluster.scrape(mesh.cluster.proxy_on(node), 15020).splitlines():
            if match := re.match(rf'{SECONDS}_bucket{{le="([^"]+)"}} (\S+)', line):
                found[float(match[1])] = found.get(float(match[1]), 0) + float(match[2])
    return found


def counted(mesh: Mesh, nodes: set[str], more_than: float) -> dict[float, float] | None:
    """The same, once there are more in all."""
    found = buckets(mesh, nodes)
    return found if found.get(float("inf"), 0.0) > more_than else None


def quantile(counts: dict[float, float], share: float) -> float:
    """The least bound below which that share of them are."""
    total = max(counts.values())
    return min(bound for bound, count in counts.items() if count >= share * total)


def test_of_fifty_pods_at_once_none_calls_before_it_is_enrolled(
    mesh: Mesh, cluster: Cluster, apps: Apps, nodes: tuple[str, str]
) -> None:
    """What they call takes nothing in plaintext: who called in plaintext would have been reset."""
    apps.label("ambient")
    first = buckets(mesh, set(nodes)).get(float("inf"), 0.0)
    apps.start(apps.server("b", nodes[1]))
    cluster.apply(strict(apps, "STRICT"))
    address = apps.addresses("b")[0]
    # A page of metrics is kept for a second.
    before = wait_until("that one is counted", lambda: counted(mesh, set(nodes), first), 10, 0.3)
    misses = sum(mesh.count(node, "ztunnel_pod_start_misses_total") for node in set(nodes))
    cluster.apply(*(eager(apps, number, nodes[number % 2], address) for number in range(PODS)))
    found = outcomes(apps)
    counts = {bound: count - before.get(bound, 0) for bound, count in buckets(mesh, set(nodes)).items()}
    waited = sum(each["tries"] > 1 for each in found.values())
    print(
        f"{PODS} pods: enrolled after their first process within {quantile(counts, 0.5)} s (p50), "
        f"{quantile(counts, 0.99)} s (p99); {waited} had to try again"
    )
    assert len(found) == PODS
    assert {
        name: each for name, each in found.items() if not set(each["all"]) <= {0, errno.ECONNREFUSED}
    } == {}
    assert {name: each for name, each in found.items() if 0 not in each["all"]} == {}
    assert counts[float("inf")] == PODS
    assert sum(mesh.count(node, "ztunnel_pod_start_misses_total") for node in set(nodes)) == misses
