"""Looking at a cluster: what is asked of it, and what becomes of what it does not show."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from tests.analyze.kubectl import Fake
from tests.analyze.test_forward import listing, pod
from tests.analyze.test_preflight import ON, node, workload
from tests.cli.test_explain import page
from ztunnel.analyze.forward import NoCluster
from ztunnel.analyze.preflight import RIGHTS
from ztunnel.cli._preflight import preflight
from ztunnel.cli.main import main

VERSION = {"clientVersion": {"gitVersion": "v1.30.0"}, "serverVersion": {"gitVersion": "v1.33.1"}}
NAMES = "authorizationpolicies.security.istio.io", "gateways.gateway.networking.k8s.io"
DUMP = {"version": {"version": "0.1.0"}, "workloads": [], "workloadState": {"u//Pod/a/b": {"state": "Up"}}}


def listed(*items: dict[str, Any]) -> str:
    return f"cat <<'END'\n{json.dumps({'kind': 'List', 'items': items})}\nEND\n"


def reviewed(*refused: str) -> str:
    """The answers as kubectl prints them: one object behind the other."""
    answers = (
        json.dumps(
            {"kind": "SelfSubjectAccessReview", "status": {"allowed": str(each) not in refused}}, indent=1
        )
        for each in RIGHTS
    )
    return "cat >$(dirname $0)/asked; cat <<'END'\n" + "\n".join(answers) + "\nEND\n"


def cluster(**change: str) -> str:
    """A kubectl that answers for a cluster; `change` says what some of its answers are instead."""
    answers = {
        "version": f"echo '{json.dumps(VERSION)}'",
        "nodes": listed(node("n1"), node("n2")),
        "workloads": listed(workload("Deployment", "shop", "web")),
        "namespaces": listed(),
        "definitions": "\n".join(
            f"echo customresourcedefinition.apiextensions.k8s.io/{each}" for each in NAMES
        ),
        "cilium": "true",
        "rights": reviewed(),
        "pods": listing(),
        **change,
    }
    return f"""case "$*" in
    "version -o json") {answers["version"]};;
    "get nodes -o json") {answers["nodes"]}
    ;;
    "get daemonsets,deployments -A -o json") {answers["workloads"]}
    ;;
    "get namespaces -o json") {answers["namespaces"]}
    ;;
    "get customresourcedefinitions -o name") {answers["definitions"]}
    ;;
    *cilium-config*) {answers["cilium"]}
    ;;
    "create -f - -o json") {answers["rights"]}
    ;;
    *"get pods -l app.kubernetes.io/component=node"*) {answers["pods"]}
    ;;
    "-n z"*" get daemonsets"*) {answers.get("daemonsets", listed())}
    ;;
    *port-forward*) {answers.get("forward", "exit 1")};;
    *) echo "unexpected: $*" >&2; exit 1;;
    esac"""


def test_a_cluster_without_a_mesh_is_looked_at_and_nothing_is_changed(kubectl: Fake, tmp_path: Any) -> None:
    kubectl(cluster())
    done = CliRunner().invoke(main, ["check", "--cluster"])
    assert done.exit_code == 0, done.output
    assert "0 warnings, 0 failures" in done.output
    asked = [json.loads(each) for each in (tmp_path / "asked").read_text().split("\n---\n")]
    assert {each["kind"] for each in asked} == {"SelfSubjectAccessReview"}, "whose creation changes nothing"
    wanted = [each["spec"]["resourceAttributes"] for each in asked]
    assert {
        "verb": "create",
        "group": "apps",
        "resource": "daemonsets",
        "namespace": "ztunnel-system",
    } in wanted
    assert {"verb": "create", "group": "", "resource": "namespaces"} in wanted


def test_what_is_in_the_way_fails_it(kubectl: Fake) -> None:
    kubectl(
        cluster(
            cilium=f"cat <<'END'\n{json.dumps({'data': ON})}\nEND\n",
            rights=reviewed("create daemonsets.apps"),
        )
    )
    done = CliRunner().invoke(main, ["check", "--cluster", "-o", "json"])
    assert done.exit_code == 1
    found = {each["name"]: each["state"] for each in json.loads(done.output) if each["state"] != "ok"}
    assert found == {"to install": "warn", "Cilium": "fail"}


def test_what_may_not_be_looked_at_costs_only_itself(kubectl: Fake) -> None:
    forbidden = "echo 'Error from server (Forbidden): no' >&2; exit 1"
    kubectl(cluster(nodes=forbidden, workloads=forbidden, rights="echo nonsense"))
    checks = {each.name: each for each in preflight("ztunnel-system")}
    assert "Forbidden" in checks["nodes"].found
    assert "Forbidden" in checks["workloads"].found
    assert "your rights" in checks
    assert checks["version"].found == "v1.33.1"


def test_every_node_proxy_is_asked_where_there_are_some(kubectl: Fake) -> None:
    with page(lambda path: (200, json.dumps(DUMP) if path == "/config_dump" else "ready")) as address:
        port = address.rpartition(":")[2]
        kubectl(
            cluster(
                pods=listing(pod("zt-a", "n1")),
                forward=f"echo 'Forwarding from 127.0.0.1:{port} -> 1'; exec sleep 60",
            )
        )
        checks = {each.name: each.found for each in preflight("zs") if each.category == "node proxies"}
    assert checks["n2"] == "has none"
    assert "n1" in checks


def test_a_cluster_that_cannot_be_asked_is_the_error(kubectl: Fake) -> None:
    kubectl("echo 'no route' >&2; exit 1")
    with pytest.raises(NoCluster, match="no route"):
        preflight("ztunnel-system")
    done = CliRunner().invoke(main, ["check", "--cluster"])
    assert (done.exit_code, "no route" in done.output) == (1, True)
