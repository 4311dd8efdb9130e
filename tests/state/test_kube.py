"""Kubernetes' objects: what the mesh needs of them is read, and what is wrong in that is found."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from ztunnel.model.service import IpFamilies
from ztunnel.state.kube import (
    ServicePort,
    read_node,
    read_pod,
    read_service,
)
from ztunnel.state.manifest import Notes, compose


def read(reader, body):
    notes = Notes()
    found = reader(compose("metadata: {name: a}\n" + body, notes))
    return found, [fault.field for fault in notes.faults]


def test_nodes_are_in_no_namespace():
    assert read(read_node, "")[0].meta.namespace == ""


def test_a_pod_is_read():
    pod, faults = read(
        read_pod,
        """
spec:
  nodeName: n1
  serviceAccountName: web
  brandNewField: {}
  initContainers:
  - {name: once, ports: [{name: once, containerPort: 1}]}
  - {name: stays, restartPolicy: Always, ports: [{name: stays, containerPort: 2}]}
  containers:
  - name: c
    ports: [{name: http, containerPort: 80}, {containerPort: 81}, {name: u, containerPort: 82, protocol: UDP}]
status:
  phase: Running
  podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]
  conditions: [{type: Ready, status: "True"}]
""",
    )
    assert faults == []
    assert (pod.node, pod.service_account, pod.host_network, pod.phase) == ("n1", "web", False, "Running")
    assert pod.ports == {"http": 80, "stays": 2}
    assert pod.addresses == (IPv4Address("10.0.0.1"), IPv6Address("fd00::1"))
    assert pod.ready


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        ("{}", True),
        ("{conditions: []}", True),
        ("{conditions: [{type: Ready, status: 'True'}]}", True),
        ("{conditions: [{type: Ready, status: 'False'}]}", False),
        ("{conditions: [{type: PodScheduled, status: 'True'}]}", False),
    ],
)
def test_a_pod_is_ready_when_its_kubelet_says_so_or_there_is_none(status, ready):
    assert read(read_pod, f"status: {status}")[0].ready is ready


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("spec: {hostNetwrok: true}", "spec.hostNetwrok"),
        ("spec: {nodename: n1}", "spec.nodename"),
        ("spec: {hostNetwork: 'yes'}", "spec.hostNetwork"),
        ("spec: []", "spec"),
        (
            "spec: {containers: [{ports: [{containerPort: 99999}]}]}",
            "spec.containers[0].ports[0].containerPort",
        ),
        ("spec: {containers: [{ports: [{port: 80}]}]}", "spec.containers[0].ports[0].port"),
        ("status: {podIP: 10.0.0}", "status.podIP"),
        ("status: {podIPs: [{ip: 'fe80::1%eth0'}]}", "status.podIPs[0].ip"),
    ],
)
def test_what_is_wrong_in_a_pod_is_found(body, field):
    assert read(read_pod, body)[1][0] == field


def test_a_service_is_read():
    service, faults = read(
        read_service,
        """
spec:
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1, "fd00::1"]
  ipFamilies: [IPv6]
  selector: {app: web}
  internalTrafficPolicy: Local
  publishNotReadyAddresses: true
  trafficDistribution: PreferClose
  externalTrafficPolicy: Local
  ports:
  - {name: a, port: 80, targetPort: http}
  - {port: 81, targetPort: 8081}
  - {port: 82, appProtocol: grpc}
  - {port: 53, protocol: UDP}
""",
    )
    assert faults == []
    assert service.addresses == (IPv4Address("10.96.0.1"), IPv6Address("fd00::1"))
    assert service.ports == (
        ServicePort("a", 80, "http"),
        ServicePort("", 81, 8081),
        ServicePort("", 82, 82, "grpc"),
    )
    assert (service.local_only, service.publish_not_ready, service.traffic_distribution) == (
        True,
        True,
        "PreferClose",
    )
    assert (service.selector, service.ip_families) == ({"app": "web"}, IpFamilies.IPV6_ONLY)


LB = """
metadata: {name: a}
spec: {type: LoadBalancer, clusterIP: 10.96.0.1, externalIPs: [192.0.2.1, "2001:db8::1"]%s}
status: {loadBalancer: {ingress: [{ip: 192.0.2.2}, {ip: 192.0.2.3, ipMode: Proxy}, {hostname: x.example}]}}
"""


@pytest.mark.parametrize(
    ("more", "external"),
    [
        ("", ["192.0.2.1", "2001:db8::1", "192.0.2.2"]),
        (", ipFamilies: [IPv4]", ["192.0.2.1", "192.0.2.2"]),
        (", ipFamilies: [IPv6]", ["2001:db8::1"]),
        (", loadBalancerSourceRanges: [10.0.0.0/8]", ["192.0.2.1", "2001:db8::1"]),
    ],
)
def test_external_addresses_are_read_as_kube_proxy_serves_them(more, external):
    notes = Notes()
    service = read_service(compose(LB % more, notes))
    assert notes.faults == []
    assert [str(ip) for ip in service.external] == external
    headless = LB.replace("10.96.0.1", "None") % more
    assert read_service(compose(headless, notes)).external == ()


def test_a_headless_service_has_no_addresses():
    assert read(read_service, "spec: {clusterIP: None, clusterIPs: [None]}")[0].addresses == ()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("", ""),
        ("spec: {selctor: {}}", "spec.selctor"),
        ("spec: {selector: {app: [a]}}", "spec.selector.app"),
        ("spec: {selector: {matchLabels: {a: b}}}", "spec.selector.matchLabels"),
        ("spec: {clusterIP: 10.0.0.300}", "spec.clusterIP"),
        ("spec: {type: Nodeport}", "spec.type"),
        ("spec: {ports: [{}]}", "spec.ports[0]"),
        ("spec: {ports: [{port: 0}]}", "spec.ports[0].port"),
        ("spec: {ports: [{port: 80, targetport: 80}]}", "spec.ports[0].targetport"),
        ("spec: {ports: [{port: 80, targetPort: 70000}]}", "spec.ports[0].targetPort"),
        ("spec: {ports: [{port: 80, targetPort: '8080'}]}", "spec.ports[0].targetPort"),
        ("spec: {ports: [{port: 80, protocol: tcp}]}", "spec.ports[0].protocol"),
        ("spec: {internalTrafficPolicy: local}", "spec.internalTrafficPolicy"),
    ],
)
def test_what_is_wrong_in_a_service_is_found(body, field):
    assert read(read_service, body)[1][0] == field


@pytest.mark.parametrize(
    ("spec", "seconds", "fault"),
    [
        ("{}", 0, ""),
        ("{sessionAffinity: None}", 0, ""),
        ("{sessionAffinity: ClientIP}", 10800, ""),
        ("{sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}}", 60, ""),
        ("{sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {}}}", 10800, ""),
        ("{sessionAffinity: None, sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}}", 0, ""),
        (
            "{sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}}",
            86401,
            "1 to 86400",
        ),
        ("{sessionAffinity: Cookie}", 0, "must be one of"),
    ],
)
def test_a_client_keeps_its_endpoint_as_long_as_its_service_says(spec, seconds, fault):
    notes = Notes()
    found = read_service(compose(f"metadata: {{name: web}}\nspec: {spec}", notes))
    assert found.affinity_seconds == seconds
    assert fault in " ".join(map(str, notes.faults))
    assert bool(notes.faults) == bool(fault)
