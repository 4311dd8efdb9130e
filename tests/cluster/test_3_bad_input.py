"""Policies that the API server lets through and that make no sense, and rights that are missing: said where
one looks, in force nowhere, and over as soon as they are fixed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.cluster.apps import Apps
from tests.cluster.cluster import Cluster, Object, is_ready, wait_until
from tests.cluster.conftest import SYSTEM, Mesh
from tests.cluster.test_3_policy import SECONDS, allow, answered

pytestmark = pytest.mark.timeout(300)

BAD = {
    "rules[0].from[0].source.ipBlocks[0]": {"from": [{"source": {"ipBlocks": ["10.0.0.0/99"]}}]},
    "rules[0].to[0].operation.ports[0]": {"to": [{"operation": {"ports": ["http"]}}]},
    "rules[0].when[0]": {"when": [{"key": "source.nonsense", "values": ["x"]}]},
    "rules[0].when[0].values[0]": {"when": [{"key": "destination.port", "values": ["many"]}]},
}
"""Each would let everybody in if what makes no sense were left out of it."""
BODY = """
import urllib.error, urllib.request
try:
    answer = urllib.request.urlopen("http://127.0.0.1:15021/healthz/ready", timeout=5)
except urllib.error.HTTPError as error:
    answer = error
print(answer.read().decode())
"""
RECOVERY_SECONDS = 60
"""Asked again after half a minute at the most."""


def policy(apps: Apps, name: str, rule: Object) -> Object:
    made = allow(apps, "nobody")
    return {
        **made,
        "metadata": {"name": name, "namespace": apps.namespace},
        "spec": {**made["spec"], "rules": [rule]},
    }


def condition(apps: Apps, name: str) -> dict[str, Any]:
    """ZtunnelAccepted of a policy; empty where there is none for what it says now."""
    found = apps.cluster.get("authorizationpolicy.security.istio.io", name, apps.namespace)
    for each in found.get("status", {}).get("conditions", []):
        if (
            each["type"] == "ZtunnelAccepted"
            and int(each["observedGeneration"]) == found["metadata"]["generation"]
        ):
            return dict(each)
    return {}


def analyzed(cluster: Cluster, apps: Apps) -> str:
    """What `ztunnel analyze` says of the namespace."""
    done = cluster.ztunnel("analyze", "--cluster", "-n", apps.namespace)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_a_policy_that_makes_no_sense_is_said_and_widens_nothing(
    mesh: Mesh, cluster: Cluster, apps: Apps, nodes: tuple[str, str]
) -> None:
    apps.label("ambient")
    apps.start(apps.account("one"), apps.server("a", nodes[0], account="one"), apps.server("b", nodes[1]))
    addresses = apps.addresses("b")
    wait_until("a may", lambda: all(answered(apps, "a", each) for each in addresses), SECONDS)
    cluster.apply(allow(apps, "two"))
    for address in addresses:
        wait_until("only account two may", lambda a=address: not answered(apps, "a", a), SECONDS)

    for number, (field, rule) in enumerate(BAD.items()):
        names = ("callers", f"another-{number}")
        cluster.apply(*(policy(apps, name, rule) for name in names))
        for name, instead in zip(
            names, ("its last good version is in force", "it is not in force"), strict=True
        ):
            found = wait_until(f"{name} has a status", lambda name=name: condition(apps, name), SECONDS)
            assert (found["status"], found["reason"]) == ("False", "Invalid"), found
            assert f"spec.{field}: " in found["message"]
            assert found["message"].endswith(instead)
        assert [each for each in addresses if answered(apps, "a", each)] == [], field

    said = analyzed(cluster, apps)
    for number, field in enumerate(BAD):
        [line] = [each for each in said.splitlines() if f"another-{number}" in each]
        assert field in line
    [control, *_] = [each["metadata"]["name"] for each in mesh.pods("control")]
    assert f"AuthorizationPolicy {apps.namespace}/callers" in cluster.scrape(control, 15021, "/healthz/ready")

    cluster.apply(allow(apps, "one"))
    for address in addresses:
        wait_until("account one may", lambda a=address: answered(apps, "a", a), SECONDS)
    assert condition(apps, "callers")["status"] == "True"
    for pod in mesh.pods("control"):
        assert [one["restartCount"] for one in pod["status"]["containerStatuses"]] == [0], mesh.describe()


@contextmanager
def without_right(cluster: Cluster, resource: str) -> Iterator[None]:
    """Of the control plane, to look at these; given back at the end."""
    role = cluster.get("clusterrole", "ztunnel-control")
    kept = {name: role["metadata"][name] for name in ("name", "labels", "annotations")}
    rules = [
        {**rule, "resources": [each for each in rule["resources"] if each != resource]}
        for rule in role["rules"]
    ]
    assert rules != role["rules"]
    less = {**role, "metadata": kept, "rules": [rule for rule in rules if rule["resources"]]}
    try:
        cluster.call("replace", "-f", "-", stdin=json.dumps(less))
        yield
    finally:
        cluster.call("replace", "-f", "-", stdin=json.dumps({**role, "metadata": kept}))


def test_a_right_that_is_missing_is_named_and_had_again_without_a_restart(
    mesh: Mesh, cluster: Cluster, apps: Apps, nodes: tuple[str, str]
) -> None:
    """A control plane that starts without it serves nobody half a world; the one that has all goes on."""
    apps.label("ambient")
    apps.start(apps.server("a", nodes[0]), apps.server("b", nodes[1]))
    address = apps.addresses("b")[0]
    before = {each["metadata"]["name"] for each in mesh.pods("control")}
    with without_right(cluster, "authorizationpolicies"):
        cluster.call("-n", SYSTEM, "delete", "pod", sorted(before)[0], timeout=60)
        [new] = wait_until(
            "another one starts", lambda: {each["metadata"]["name"] for each in mesh.pods("control")} - before
        )
        words = "needs RBAC: list authorizationpolicies.security.istio.io"
        wait_until("it says what it lacks", lambda: words in body(cluster, new), 30, 0.3)
        assert "not ready, pending: manifests" in body(cluster, new)
        assert words in cluster.call("-n", SYSTEM, "logs", new)
        assert answered(apps, "a", address)
        assert not is_ready(cluster.get("pod", new, SYSTEM))
    wait_until("it is ready", lambda: is_ready(cluster.get("pod", new, SYSTEM)), RECOVERY_SECONDS, 0.3)
    assert "kubernetes:" not in body(cluster, new)
    [status] = cluster.get("pod", new, SYSTEM)["status"]["containerStatuses"]
    assert status["restartCount"] == 0


def body(cluster: Cluster, pod: str) -> str:
    """Of readiness, whatever its status is; empty while nobody serves it."""
    return cluster.call("-n", SYSTEM, "exec", pod, "--", "python3", "-c", BODY, check=False)
