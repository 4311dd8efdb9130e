"""An operator's tools against a cluster: whether it can take a mesh and how that is, what a node proxy knows,
what becomes of a call and why, who would be cut off by STRICT, and what is gathered for others to look at."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.apps import PORT, Apps, namespace
from tests.cluster.cluster import Cluster, wait_until
from tests.cluster.conftest import SYSTEM, Mesh
from tests.cluster.test_3_policy import allow, answered

pytestmark = pytest.mark.timeout(300)

SECONDS = 15


def values(cluster: Cluster, *words: str, status: int = 0) -> Any:
    """What a command has to say, as a program reads it."""
    done = cluster.ztunnel(*words, "-o", "json")
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_a_cluster_and_its_mesh_are_well_and_that_is_said(mesh: Mesh, cluster: Cluster) -> None:
    found = {(each["category"], each["name"]): each for each in values(cluster, "check", "--cluster")}
    for node in cluster.nodes():
        assert found["node proxies", node]["found"].startswith("ready")
    assert found["your rights", "to install"]["state"] == "ok"
    assert found["cluster", "authorizationpolicies.security.istio.io"]["state"] == "ok"
    status = values(cluster, "status")
    assert sorted(each["node"] for each in status["nodes"]) == cluster.nodes()
    assert all(each["ready"] for each in status["nodes"])
    text = cluster.ztunnel("status")
    assert text.returncode == 0, text.stdout
    for each in (*mesh.pods("node"), *mesh.pods("control")):
        assert each["metadata"]["name"] in text.stdout


def test_what_a_node_knows_and_what_becomes_of_a_call_is_told(
    mesh: Mesh, cluster: Cluster, apps: Apps, nodes: tuple[str, str]
) -> None:
    """Of a node proxy by its node or its pod, and of the cluster's objects; refused by a policy, which is
    named, and who would be cut off by STRICT."""
    apps.label("ambient")
    name = apps.namespace
    apps.start(apps.server("a", nodes[0]), apps.server("b", nodes[1]), apps.service("web", "b"))
    for address in (*apps.addresses("b"), *apps.service_addresses("web")):
        port = PORT if address in apps.addresses("b") else 80
        wait_until(f"{address} answers", lambda at=address, to=port: "pod" in apps.call("a", at, to), SECONDS)

    for where in (("--node", nodes[0]), ("--pod", cluster.proxy_on(nodes[0]))):
        workloads = values(cluster, "config", "workloads", *where, "-n", name)
        assert {each["name"]: each["protocol"] for each in workloads} == {"a": "HBONE", "b": "HBONE"}
    [service] = values(cluster, "config", "services", "--node", nodes[0], "-n", name)
    assert service["hostname"] == f"web.{name}.svc.cluster.local"
    table = cluster.ztunnel("config", "all", "--node", nodes[1])
    assert table.returncode == 0, table.stderr
    assert f"spiffe://cluster.local/ns/{name}/sa/default" in table.stdout

    call = (f"{name}/a", f"web.{name}:80")
    assert values(cluster, "explain", *call, "--node", nodes[0])["allowed"] is True
    cluster.apply(allow(apps, "nobody"))
    wait_until("it is refused", lambda: not answered(apps, "a", apps.addresses("b")[0]), SECONDS)
    for where in (("--cluster",), ("--node", nodes[0])):
        told = cluster.ztunnel("explain", *call, *where)
        assert (told.returncode, f"{name}/callers" in told.stdout) == (1, True), told.stdout + told.stderr
    cluster.call("-n", name, "delete", "authorizationpolicy.security.istio.io", "callers")

    with namespace(cluster, f"{name}-out") as outside:
        outside.start(outside.server("x", nodes[0]))
        for address in apps.addresses("b"):
            wait_until("who is outside is answered", lambda at=address: answered(outside, "x", at), SECONDS)
        done = cluster.ztunnel("check", "--strict", name, "--cluster")
    assert done.returncode == 1, done.stdout
    cut_off = [each for each in done.stdout.splitlines() if "[fail]" in each]
    assert any(f"{name}/b" in each for each in cut_off), done.stdout


def test_what_is_gathered_is_whole_and_has_no_key_and_no_token(
    mesh: Mesh, cluster: Cluster, tmp_path: Path
) -> None:
    path = tmp_path / "report.tar.gz"
    done = cluster.ztunnel("bug-report", "--cluster", "-o", str(path))
    assert done.returncode == 0, done.stderr
    with tarfile.open(path) as archive:
        files = {each.name.partition("/")[2]: archive.extractfile(each) for each in archive.getmembers()}
        texts = {name: file.read().decode(errors="replace") for name, file in files.items() if file}
    wanted = {f"nodes/{node}/{file}" for node in cluster.nodes() for file in ("log.txt", "config_dump.json")}
    wanted |= {f"control/{each['metadata']['name']}/metrics.txt" for each in mesh.pods("control")}
    wanted |= {"control/log.txt", "objects/authorizationpolicies.security.istio.io.yaml", "cluster/own.txt"}
    assert wanted <= texts.keys(), texts["errors.txt"]
    secrets = json.loads(cluster.call("-n", SYSTEM, "get", "secrets", "-o", "json"))["items"]
    for each in secrets:
        for key, value in each.get("data", {}).items():
            if "cert" not in key:
                assert not [name for name, text in texts.items() if value[:200] in text], (
                    each["metadata"],
                    key,
                )
    for name, text in texts.items():
        assert "PRIVATE KEY-----\n" not in text, name
        assert "eyJhbGciOiJ" not in text, name
