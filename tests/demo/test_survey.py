import pytest

from ztunnel.demo.cluster import cluster
from ztunnel.demo.manifest import parse
from ztunnel.demo.operate import Laboratory
from ztunnel.demo.schedule import complete
from ztunnel.demo.survey import asks_for_mesh

AMBIENT, NONE = "istio.io/dataplane-mode: ambient", "istio.io/dataplane-mode: none"


@pytest.mark.parametrize(
    ("namespace", "pod", "host_network", "expected"),
    [
        ("", "", "false", False),
        (AMBIENT, "", "false", True),
        (AMBIENT, NONE, "false", False),
        ("", AMBIENT, "false", True),
        (NONE, AMBIENT, "false", True),
        (AMBIENT, "", "true", False),
    ],
)
def test_the_label_of_the_pod_counts_before_that_of_its_namespace(
    namespace: str, pod: str, host_network: str, expected: bool
) -> None:
    text = (
        f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: t, labels: {{{namespace}}}}}\n---\n"
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: a, namespace: t, labels: {{{pod}}}}}\n"
        f"spec: {{hostNetwork: {host_network}}}\n"
    )
    objects = complete({}, parse(text, ""), iter("abc").__next__)
    assert asks_for_mesh(cluster(objects).pods[0], objects) is expected


@pytest.mark.root
@pytest.mark.timeout(60)
def test_what_runs_and_what_has_ended_is_told_apart(laboratory: Laboratory) -> None:
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec: {containers: [{command: [%s]}]}\n---\n"
    laboratory.up(pod % ("ends", "'true'") + pod % ("lives", "sleep, '60'"), start_nodes=False)
    while [pod.name for pod in laboratory.survey().pods if pod.running] != ["lives"]:
        pass
    found = laboratory.survey()
    nodes, pods = found.nodes, found.pods
    assert [(node.name, node.proxy) for node in nodes] == [
        ("node-1", "not running"),
        ("node-2", "not running"),
    ]
    assert [(pod.name, pod.running, pod.wanted) for pod in pods] == [
        ("ends", False, False),
        ("lives", True, False),
    ]
