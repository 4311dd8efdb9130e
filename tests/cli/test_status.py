"""`ztunnel status`: every node proxy is asked; what does not answer is shown."""

from __future__ import annotations

import json

import yaml
from click.testing import CliRunner, Result

from tests.analyze.kubectl import Fake
from tests.analyze.test_nodes import DUMP, pod
from tests.cli.test_explain import page
from ztunnel.cli.main import main

GOOD = {**DUMP, "workloadState": {}}


def call(*words: str) -> Result:
    return CliRunner().invoke(main, ["status", *words])


def script(address: str, nodes: str, dead: bool = False) -> str:
    port = address.rpartition(":")[2]
    reach = f"echo 'Forwarding from 127.0.0.1:{port} -> 1'; exec sleep 60"
    return f"""case "$*" in
    *port-forward*) {"echo 'pod has gone' >&2; exit 1" if dead else reach};;
    *component=node*) cat <<'END'
{nodes}
END
    ;;
    *) echo '{json.dumps({"items": [pod()]})}';;
    esac"""


NODES = json.dumps({"items": [pod()]})


def test_all_is_well(kubectl: Fake) -> None:
    with page(lambda path: (200, json.dumps(GOOD) if "dump" in path else "ready\n")) as address:
        kubectl(script(address, NODES))
        found = call()
        as_json = json.loads(call("-o", "json").output)
        assert as_json == yaml.safe_load(call("-o", "yaml").output)
    assert found.exit_code == 0
    assert found.output.splitlines()[-1].split() == ["n1", "zt-a", "yes", "0", "1.2.3", "0", "0", "3"]


def test_what_is_not_well_is_said_and_fails(kubectl: Fake) -> None:
    with page(
        lambda path: (200, json.dumps(DUMP)) if "dump" in path else (200, "ready\nxDS: lost\n")
    ) as address:
        kubectl(script(address, NODES))
        found = call()
    assert found.exit_code == 1
    assert "n1: xDS: lost\n" in found.output
    assert "n1: shop/b is not in the mesh: no namespace yet\n" in found.output


def test_a_proxy_that_does_not_answer_is_shown(kubectl: Fake) -> None:
    kubectl(script("x:1", NODES, dead=True))
    found = call()
    assert found.exit_code == 1
    assert "pod has gone" in found.output


def test_where_nothing_is_installed_that_is_said(kubectl: Fake) -> None:
    kubectl(script("x:1", '{"items": []}'))
    found = call()
    assert found.exit_code == 1
    assert "there are no node proxies in namespace ztunnel-system" in found.output


def refused(message: str, at: str) -> dict[str, object]:
    return {
        "reason": "FailedCreate",
        "message": message,
        "lastTimestamp": at,
        "involvedObject": {"kind": "DaemonSet", "name": "ztunnel"},
    }


def test_a_daemon_set_whose_pods_are_refused_is_told_of_with_the_reason(kubectl: Fake) -> None:
    """As where a namespace admits restricted pods only."""
    there = {"metadata": {"namespace": "ztunnel-system", "name": "ztunnel"}}
    events = [refused("an older one", "2026-01-01"), refused("violates PodSecurity restricted", "2026-01-02")]
    kubectl(
        f"""case "$*" in
    *daemonsets*) echo '{json.dumps({"items": [there]})}';;
    *events*) echo '{json.dumps({"items": events})}';;
    *) echo '{json.dumps({"items": []})}';;
    esac"""
    )
    found = call()
    assert found.exit_code == 1
    told = "DaemonSet ztunnel-system/ztunnel cannot make its pods: violates PodSecurity restricted"
    assert told in found.output
    assert "install" not in found.output


def test_an_upgrade_that_has_come_to_a_halt_is_told_of_and_fails(kubectl: Fake) -> None:
    there = pod()
    there["metadata"] = {
        "name": "zt-a",
        "creationTimestamp": "1",
        "labels": {"controller-revision-hash": "1"},
    }
    comes = pod("False")
    comes["metadata"] = {
        "name": "zt-b",
        "creationTimestamp": "2",
        "labels": {"controller-revision-hash": "2"},
    }
    nodes = json.dumps({"items": [there, comes]})
    with page(lambda path: (200, json.dumps(GOOD) if "dump" in path else "ready\n")) as address:
        kubectl(script(address, nodes))
        found = call()
        values = json.loads(call("-o", "json").output)
    assert found.exit_code == 1
    last = "n1: zt-b has not taken over: it is not ready yet; zt-a serves"
    assert found.output.splitlines()[-1] == last == values["upgrade"][-1]
    assert values["upgrade"][0].startswith("upgrade: 0 of 1 nodes")
