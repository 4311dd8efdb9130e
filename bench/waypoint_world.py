"""What `bench.control` adds to its cluster for waypoints: one for each namespace, with routes and rules."""

from __future__ import annotations

from collections.abc import Iterator

from bench.control_world import CREATED, NAMESPACES, SERVICES, Value

CLASS = "ztunnel-waypoint"
NAME = "waypoint"


def namespace_labels() -> Value:
    """Of a namespace whose services have a waypoint."""
    return {"istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": NAME}


def waypoint_objects() -> Iterator[tuple[str, Value]]:
    """Gateway, Service and pod of each waypoint; of each service a route that splits, with two headers and a
    retry, subsets with outlier detection and a policy of its waypoint."""
    for namespace in range(NAMESPACES):
        yield from _waypoint(namespace)
        for service in range(SERVICES):
            yield from _rules(namespace, service)


def _meta(name: str, namespace: int, labels: Value | None = None) -> Value:
    made = {"name": name, "namespace": f"ns-{namespace}", "uid": f"uid-{namespace}-{name}"}
    return {**made, "creationTimestamp": CREATED, "labels": labels or {}, "generation": 1}


def _waypoint(namespace: int) -> Iterator[tuple[str, Value]]:
    listener = {"name": "mesh", "port": 15008, "protocol": "HBONE"}
    address = {"type": "Hostname", "value": f"{NAME}.ns-{namespace}.svc.cluster.local"}
    yield (
        "Gateway",
        {
            "metadata": _meta(NAME, namespace),
            "spec": {"gatewayClassName": CLASS, "listeners": [listener]},
            "status": {"addresses": [address]},
        },
    )
    labels = {"gateway.networking.k8s.io/gateway-name": NAME, "networking.istio.io/tunnel": "http"}
    spec = {
        "clusterIP": f"10.201.0.{namespace + 1}", "type": "ClusterIP", "selector": labels,
        "ports": [{"name": "mesh", "port": 15008, "targetPort": 15008, "protocol": "TCP"}],
    }  # fmt: skip
    yield "Service", {"metadata": _meta(NAME, namespace, labels), "spec": spec}
    ip = f"10.{namespace}.200.1"
    pod = {
        "metadata": _meta(f"{NAME}-0", namespace, {**labels, "istio.io/dataplane-mode": "none"}),
        "spec": {"nodeName": "node-0", "serviceAccountName": NAME, "containers": [{"name": NAME}]},
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }  # fmt: skip
    yield "Pod", pod
    endpoint = {
        "addresses": [ip], "conditions": {"ready": True},
        "targetRef": {"kind": "Pod", "name": f"{NAME}-0", "namespace": f"ns-{namespace}"},
    }  # fmt: skip
    of_service = {"kubernetes.io/service-name": NAME}
    yield (
        "EndpointSlice",
        {
            "metadata": _meta(f"{NAME}-x", namespace, of_service),
            "addressType": "IPv4",
            "ports": [{"name": "mesh", "port": 15008, "protocol": "TCP"}],
            "endpoints": [endpoint],
        },
    )


def _rules(namespace: int, service: int) -> Iterator[tuple[str, Value]]:
    host, other = f"app-{service}", f"app-{(service + 1) % SERVICES}"
    match = {"headers": {"x-user": {"exact": "jason"}}, "uri": {"prefix": f"/{service}/"}}
    routed = [
        {"destination": {"host": host, "subset": "v1"}, "weight": 90},
        {"destination": {"host": other}, "weight": 10},
    ]
    spec = {
        "hosts": [host],
        "http": [
            {"match": [match], "route": routed, "retries": {"attempts": 2, "retryOn": "5xx"}},
            {"route": [{"destination": {"host": host}}]},
        ],
    }
    yield "VirtualService", {"metadata": _meta(host, namespace), "spec": spec}
    rule = {
        "host": host,
        "trafficPolicy": {"outlierDetection": {"consecutive5xxErrors": 5}},
        "subsets": [{"name": "v1", "labels": {"version": "v1"}}],
    }
    yield "DestinationRule", {"metadata": _meta(host, namespace), "spec": rule}
    target = {"kind": "Service", "group": "", "name": host}
    allowed = {
        "targetRefs": [target],
        "action": "ALLOW",
        "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}],
    }
    yield "AuthorizationPolicy", {"metadata": _meta(f"at-{host}", namespace), "spec": allowed}
