import pytest

from ztunnel.demo.manifest import Key
from ztunnel.demo.operate import Laboratory
from ztunnel.demo.probe import probe

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

SERVES = "exec python3 -m http.server 8080 --bind {0}"


def pod(name: str, script: str, check: str) -> str:
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: t}}\n"
        f"spec: {{nodeName: node-1, containers: [{{name: x, command: [sh, -c, '{script}'], readinessProbe: "
        f"{{{check}, periodSeconds: 1, failureThreshold: 5}}}}]}}\n---\n"
    )


@pytest.mark.parametrize("address", ["0.0.0.0", "::1"])
def test_each_kind_of_probe_says_why_it_fails(laboratory: Laboratory, address: str) -> None:
    serves = SERVES.format(address)
    laboratory.up(
        pod("http", serves, "httpGet: {port: 8080}")
        + pod("tcp", serves, "tcpSocket: {port: 8080}")
        + pod("exec", "exec sleep 60", 'exec: {command: ["true"]}')
        + pod("late", f"sleep 0.5; {serves}", "httpGet: {port: 8080}")
        + pod("missing", serves, "httpGet: {port: 8080, path: /none}")
        + pod("closed", "exec sleep 60", "tcpSocket: {port: 81}").replace("Threshold: 5", "Threshold: 0")
        + pod("fails", "exec sleep 60", "exec: {command: [sh, -c, exit 3]}").replace("ld: 5", "ld: 0")
        + pod("ended", "exit 1", "tcpSocket: {port: 80}")
        + "apiVersion: v1\nkind: Pod\nmetadata: {name: caller, namespace: t}\n",
        start_nodes=False,
    )
    found = {pod.name: pod.unready for pod in laboratory.survey().pods}
    assert {name for name, reason in found.items() if not reason} == {"http", "tcp", "exec", "late", "caller"}
    assert found["missing"] == "httpGet :8080/none answers 404"
    assert found["closed"] == "tcpSocket :81 Connection refused"
    assert found["fails"] == "exec sh -c exit 3 ends with 3"
    assert found["ended"] == "tcpSocket :80 Connection refused"
    pods = laboratory.cluster().pods
    again = probe(laboratory.names, pods, ())  # of pods that run already: one look
    assert again[Key("", "Pod", "t", "http")] == ""
    assert Key("", "Pod", "t", "caller") not in again


def test_a_pod_whose_command_has_ended_is_no_endpoint(laboratory: Laboratory) -> None:
    text = (
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {0}, namespace: t}}\n"
        "spec: {{nodeName: node-1, containers: [{{name: x, command: [sh, -c, '{1}']}}]}}\n---\n"
    )
    laboratory.up(text.format("ends", "exit 3") + text.format("lives", "exec sleep 60"), start_nodes=False)
    while {pod.name: pod.running for pod in laboratory.survey().pods} != {"ends": False, "lives": True}:
        pass
    found = probe(laboratory.names, laboratory.cluster().pods, ())
    assert found == {Key("", "Pod", "t", "ends"): "its command has ended", Key("", "Pod", "t", "lives"): ""}
    laboratory.label("pod", "lives", {"a": "b"})  # any change looks again
    assert {pod.name: pod.unready for pod in laboratory.survey().pods} == {
        "ends": "its command has ended",
        "lives": "",
    }
