from ipaddress import ip_address

import pytest

from ztunnel.demo.containers import Probe, expand, named_ports, read_containers
from ztunnel.demo.manifest import Manifest, parse

ADDRESSES = (ip_address("10.244.1.2"), ip_address("fd00:244:1::2"))


def pod(spec: str) -> Manifest:
    return parse(f"apiVersion: v1\nkind: Pod\nmetadata: {{name: a, namespace: t}}\nspec: {spec}\n", "x.yaml")[
        0
    ]


def test_a_command_and_its_environment_are_expanded_as_kubernetes_does() -> None:
    (found,) = read_containers(
        pod(
            "{nodeName: n1, containers: [{name: c, command: [serve, '$(GREETING)'], "
            "args: ['$$HOME', '$(NO)'], env: [{name: GREETING, value: 'hello $(POD_NAME)'}, "
            "{name: WHERE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]}]}"
        ),
        ADDRESSES,
    )
    assert found.command == ("serve", "hello a", "$HOME", "$(NO)")
    assert (found.environment["WHERE"], found.environment["POD_IP"]) == ("n1", "10.244.1.2")


def test_arguments_without_a_command_are_for_the_image() -> None:
    (found,) = read_containers(pod("{containers: [{name: c, args: [--port=80]}]}"), ADDRESSES)
    assert found.command == ()


def test_containers_that_stay_are_read_and_their_tcp_ports() -> None:
    given = pod(
        "{containers: [{name: a, ports: [{containerPort: 53, protocol: UDP}, {containerPort: 80, name: web}, "
        "{containerPort: 80}]}, {name: b, ports: [{containerPort: 81, name: web}]}], initContainers: "
        "[{name: i, ports: [{containerPort: 82}]}, {name: s, restartPolicy: Always, "
        "ports: [{containerPort: 83, name: side}]}]}"
    )
    assert [(one.name, one.ports) for one in read_containers(given, ADDRESSES)] == [
        ("a", (80,)),
        ("b", (81,)),
        ("s", (83,)),
    ]
    assert named_ports(given) == {"web": 80, "side": 83}


def test_a_pod_without_containers_has_one_all_the_same() -> None:
    (found,) = read_containers(pod("{}"), ADDRESSES)
    assert (found.command, found.ports, found.environment["POD_NAME"]) == ((), (), "a")


@pytest.mark.parametrize(
    ("probe", "expected", "shown"),
    [
        ("{httpGet: {port: 80}}", Probe(80, "/", (), 30.0), "httpGet :80/"),
        ("{httpGet: {port: web, path: /z}, periodSeconds: 1}", Probe(8000, "/z", (), 3.0), "httpGet :8000/z"),
        ("{tcpSocket: {port: '81'}, initialDelaySeconds: 5}", Probe(81, "", (), 35.0), "tcpSocket :81"),
        (
            "{exec: {command: [cat, /x]}, failureThreshold: 1}",
            Probe(0, "", ("cat", "/x"), 10.0),
            "exec cat /x",
        ),
    ],
)
def test_a_readiness_probe_is_read(probe: str, expected: Probe, shown: str) -> None:
    ports = "ports: [{containerPort: 8000, name: web}]"
    (found,) = read_containers(pod(f"{{containers: [{{{ports}, readinessProbe: {probe}}}]}}"), ADDRESSES)
    assert found.probe == expected
    assert str(found.probe) == shown


@pytest.mark.parametrize("probe", ["{grpc: {port: 80}}", "{}"])
def test_without_a_probe_that_is_known_started_is_ready(probe: str) -> None:
    (found,) = read_containers(pod(f"{{containers: [{{readinessProbe: {probe}}}]}}"), ADDRESSES)
    assert found.probe is None


def test_a_dollar_that_means_nothing_stays() -> None:
    assert expand("$(A) $A $$(A) $", {"A": "x"}) == "x $A $(A) $"
