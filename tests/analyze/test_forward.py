"""Ports of pods, by a kubectl: what it is asked, and what is said where it fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.analyze.kubectl import Fake
from ztunnel.analyze.forward import NoCluster, forwarded, node_pods, pod_on


def pod(name: str, node: str, phase: str = "Running") -> dict[str, object]:
    return {"metadata": {"name": name}, "spec": {"nodeName": node}, "status": {"phase": phase}}


def listing(*pods: dict[str, object]) -> str:
    return f"cat <<'END'\n{json.dumps({'items': pods})}\nEND"


def test_node_proxies_that_run_are_found_by_node(kubectl: Fake, tmp_path: Path) -> None:
    kubectl(listing(pod("a", "n1"), pod("b", "n2"), pod("old", "n3", "Failed")))
    assert node_pods() == {"n1": "a", "n2": "b"}
    words = (tmp_path / "words").read_text()
    assert words == "-n ztunnel-system get pods -l app.kubernetes.io/component=node -o json "
    assert pod_on("n2") == "b"
    with pytest.raises(NoCluster, match=r"no node proxy runs on n3 in namespace x; there are: n1, n2$"):
        pod_on("n3", "x")


def test_a_port_is_forwarded_while_the_context_lasts(kubectl: Fake, tmp_path: Path) -> None:
    kubectl("echo 'Forwarding from 127.0.0.1:4711 -> 15000'; echo $$ > $(dirname $0)/pid; exec sleep 60")
    with forwarded("a", 15000) as address:
        assert address == "127.0.0.1:4711"
    assert (tmp_path / "words").read_text() == "-n ztunnel-system port-forward pod/a :15000 "


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'error: pods \"a\" not found' >&2; exit 1", 'pods "a" not found'),
        ("exit 1", "ended without a word"),
        ("echo nonsense", "ended without a word"),
        (
            "echo 'E1130 08:31:57.440888 1 memcache.go:265] \"Unhandled Error\"' >&2; exit 1",
            "Unhandled Error",
        ),
    ],
)
def test_what_kubectl_says_is_told(kubectl: Fake, script: str, said: str) -> None:
    kubectl(script)
    with pytest.raises(NoCluster, match=said), forwarded("a", 1):
        pass


def test_an_answer_that_is_none_is_told(kubectl: Fake) -> None:
    kubectl("echo 'Unable to connect to the server' >&2; exit 1")
    with pytest.raises(NoCluster, match="Unable to connect to the server"):
        node_pods()
    kubectl("echo '<html>'")
    with pytest.raises(NoCluster, match="get pods"):
        node_pods()
    kubectl(listing())
    with pytest.raises(NoCluster, match="there are none"):
        pod_on("n1")


def test_what_its_libraries_log_is_left_out(kubectl: Fake) -> None:
    logged = 'E1130 08:31:57.440888   19970 memcache.go:265] "Unhandled Error" err="no API group list"'
    kubectl(f"echo '{logged}\n{logged}\nThe connection was refused' >&2; exit 1")
    with pytest.raises(NoCluster, match=r"-o json: The connection was refused$"):
        node_pods()


def test_without_kubectl_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoCluster, match="kubectl is not in PATH"):
        node_pods()
