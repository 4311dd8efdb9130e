"""A cluster for `bench.control`: pods, services, slices and policies as large as an API server has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

Value = dict[str, Any]

NAMESPACES = 50
PODS = 100
"""In each namespace."""
SERVICES = 10
POLICIES = 6
NODES = 50

CREATED = "2026-01-01T00:00:00Z"
_AMBIENT: Value = {"istio.io/dataplane-mode": "ambient"}
_FIELDS: Value = {f"f:field-{number}": {"f:x": {}} for number in range(60)}
_MANAGED = [{"manager": "kubelet", "operation": "Update", "fieldsV1": _FIELDS}]
_CONTAINER: Value = {
    "name": "app", "image": "registry.example/app:v1", "imagePullPolicy": "IfNotPresent",
    "ports": [{"name": "web", "containerPort": 8080, "protocol": "TCP"}],
    "env": [{"name": f"VARIABLE_{number}", "value": f"value-{number}"} for number in range(20)],
    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
    "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
    "readinessProbe": {"httpGet": {"path": "/ready", "port": "web"}, "periodSeconds": 10},
    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
}  # fmt: skip


_VOLUME: Value = {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}


@dataclass(frozen=True, slots=True)
class Pod:
    """What tells one pod of the world from another."""

    namespace: int
    number: int

    @property
    def service(self) -> int:
        """The service of its namespace that selects it."""
        return self.number % SERVICES

    @property
    def uid(self) -> str:
        """The name of its workload."""
        return f"Kubernetes//Pod/ns-{self.namespace}/pod-{self.number}"

    @property
    def ip(self) -> str:
        """Its address."""
        return f"10.{self.namespace}.{self.number // 250}.{self.number % 250 + 1}"


def pods() -> list[Pod]:
    """All of them."""
    return [Pod(namespace, number) for namespace in range(NAMESPACES) for number in range(PODS)]


def _meta(name: str, namespace: int | None, labels: Value, **more: Any) -> Value:
    place = {} if namespace is None else {"namespace": f"ns-{namespace}"}
    made = {"name": name, "uid": f"uid-{namespace}-{name}", "creationTimestamp": CREATED, "labels": labels}
    return {**made, **place, "managedFields": _MANAGED, **more}


def pod_value(pod: Pod, ready: bool) -> Value:
    """A pod, as a kubelet reports it."""
    labels = {"app": f"app-{pod.service}", "pod-template-hash": "5d4f8b", "version": "v1"}
    owner = {
        "kind": "ReplicaSet",
        "name": f"app-{pod.service}-5d4f8b",
        "controller": True,
        "apiVersion": "apps/v1",
    }
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": CREATED}
        for kind in ("PodScheduled", "Initialized")
    ]
    conditions.append({"type": "Ready", "status": str(ready), "lastTransitionTime": CREATED})
    return {
        "metadata": _meta(f"pod-{pod.number}", pod.namespace, labels, ownerReferences=[owner]),
        "spec": {
            "nodeName": f"node-{pod.number % NODES}",
            "serviceAccountName": f"app-{pod.service}",
            "containers": [_CONTAINER],
            "volumes": [_VOLUME],
            "tolerations": [{"key": f"node.kubernetes.io/{key}", "operator": "Exists"} for key in ("a", "b")],
        },
        "status": {
            "phase": "Running", "podIP": pod.ip, "podIPs": [{"ip": pod.ip}], "conditions": conditions,
            "containerStatuses": [{"name": "app", "ready": ready, "imageID": "sha256:" + "0" * 64}],
        },
    }  # fmt: skip


def slice_value(namespace: int, service: int, unready: set[Pod]) -> Value:
    """The slice that Kubernetes makes of a service's selection."""
    members = [Pod(namespace, number) for number in range(service, PODS, SERVICES)]
    labels = {
        "kubernetes.io/service-name": f"app-{service}",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    return {
        "metadata": _meta(f"app-{service}-x", namespace, labels),
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": [pod.ip],
                "conditions": {
                    "ready": pod not in unready,
                    "serving": pod not in unready,
                    "terminating": False,
                },
                "nodeName": f"node-{pod.number % NODES}",
                "targetRef": {"kind": "Pod", "name": f"pod-{pod.number}", "namespace": f"ns-{namespace}"},
            }
            for pod in members
        ],
    }


def policy_value(namespace: int, number: int, port: int) -> Value:
    """An AuthorizationPolicy; every second one selects."""
    selector = {"selector": {"matchLabels": {"app": f"app-{number}"}}} if number % 2 else {}
    source = {"principals": [f"cluster.local/ns/ns-{each}/sa/app-1" for each in range(5)]}
    rule = {"from": [{"source": source}], "to": [{"operation": {"ports": ["8080", str(port)]}}]}
    return {
        "metadata": _meta(f"policy-{number}", namespace, {}, generation=1),
        "spec": {**selector, "action": "ALLOW", "rules": [rule]},
    }


def world(labels_of_namespaces: Value = _AMBIENT) -> Iterator[tuple[str, Value]]:
    """Every object, each with its kind."""
    addresses = count(1)
    for node in range(NODES):
        labels = {"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": f"z{node % 3}"}
        yield "Node", {"metadata": _meta(f"node-{node}", None, labels)}
    for namespace in range(NAMESPACES):
        yield "Namespace", {"metadata": _meta(f"ns-{namespace}", None, labels_of_namespaces)}
        for service in range(SERVICES):
            number = next(addresses)
            spec = {
                "clusterIP": f"10.200.{number // 250}.{number % 250 + 1}", "type": "ClusterIP",
                "selector": {"app": f"app-{service}"},
                "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}],
            }  # fmt: skip
            yield "Service", {"metadata": _meta(f"app-{service}", namespace, {}), "spec": spec}
            yield "EndpointSlice", slice_value(namespace, service, set())
        for number in range(POLICIES):
            yield "AuthorizationPolicy", policy_value(namespace, number, 9000)
    for pod in pods():
        yield "Pod", pod_value(pod, ready=True)
