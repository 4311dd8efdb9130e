"""What a Gateway of a waypoint's class becomes: a Deployment and a Service of its name, as istiod makes them
(istio/istio manifests/charts/istio-control/istio-discovery/files/waypoint.yaml), and its addresses."""

from __future__ import annotations

from typing import Any, Final

from ztunnel.demo.assign import Objects, cluster_ips
from ztunnel.demo.manifest import Key, Manifest

_GROUP: Final = "gateway.networking.k8s.io"
_CLASSES: Final = ("istio-waypoint", "ztunnel-waypoint")
"""Istio's class, and ours."""

_NAME: Final = f"{_GROUP}/gateway-name"
_MANAGED: Final = "gateway.istio.io/managed"
_XFCC: Final = "ambient.istio.io/xfcc-include-client-identity"
_US: Final = "istio.io-mesh-controller"
COMMAND: Final = ("ztunnel", "waypoint")
"""What runs in its pod; the laboratory adds where the manifests are."""


def follow_gateways(after: Objects) -> None:
    """Bring what is made of Gateways to what those ask for now. Somebody else's object of such a name stays
    what it is."""
    wanted: Objects = {}
    for gateway in _waypoints(after):
        for made in (_service(gateway), _deployment(gateway)):
            wanted[made.key] = made
    for key in [key for key, one in after.items() if _is_ours(one) and key not in wanted]:
        del after[key]
    for key, made in wanted.items():
        after.setdefault(key, made)


def give_addresses(after: Objects) -> None:
    """A waypoint is ready once its service has addresses, and is called by its name, in either family."""
    for gateway in _waypoints(after):
        service = after.get(Key("", "Service", gateway.key.namespace, gateway.key.name))
        found = cluster_ips(service) if service is not None else ()
        name = f"{gateway.key.name}.{gateway.key.namespace}.svc.cluster.local"
        addresses = [{"type": "Hostname", "value": name}] if found else []
        if gateway.pull("status.addresses", list, []) != addresses:
            condition = {"type": "Programmed", "status": "True", "reason": "Programmed"}
            status = {"addresses": addresses, "conditions": [condition]}
            after[gateway.key] = gateway.with_body({**gateway.body, "status": status})


def _waypoints(objects: Objects) -> list[Manifest]:
    gateways = [one for key, one in objects.items() if (key.group, key.kind) == (_GROUP, "Gateway")]
    return [
        one
        for one in gateways
        if one.pull("spec.gatewayClassName", str, "") in _CLASSES and not _is_deployed_by_hand(one)
    ]


def _is_deployed_by_hand(gateway: Manifest) -> bool:
    """Whether it names the service of what somebody else runs for it (istio/istio
    pilot/pkg/config/kube/gateway: IsManaged)."""
    addresses = gateway.pull("spec.addresses", list, [])
    return any(isinstance(one, dict) and one.get("type") == "Hostname" for one in addresses)


def _is_ours(one: Manifest) -> bool:
    return (
        one.key.kind in ("Service", "Deployment")
        and one.pull("metadata.labels", dict, {}).get(_MANAGED) == _US
    )


def _labels(gateway: Manifest) -> dict[str, str]:
    return {_NAME: gateway.key.name, _MANAGED: _US}


def _service(gateway: Manifest) -> Manifest:
    ports = [
        {"name": "status-port", "port": 15021, "targetPort": 15021},
        {"name": "mesh", "port": 15008, "targetPort": 15008, "appProtocol": "all"},
    ]
    spec = {"type": "ClusterIP", "selector": {_NAME: gateway.key.name}, "ports": ports}
    return _made(gateway, "", "Service", "v1", spec)


def _deployment(gateway: Manifest) -> Manifest:
    labels = _labels(gateway)
    identity = gateway.pull("metadata.annotations", dict, {}).get(_XFCC) == "true"
    container = {
        "name": "istio-proxy",
        "command": list(COMMAND),
        "env": [{"name": "ZTUNNEL_XFCC", "value": "true"}] if identity else [],
    }
    probe = {"httpGet": {"path": "/healthz/ready", "port": 15021}, "periodSeconds": 1, "failureThreshold": 20}
    pod = {
        "metadata": {
            "labels": {
                **labels,
                "istio.io/dataplane-mode": "none",
                "networking.istio.io/tunnel": "http",
                "service.istio.io/canonical-name": gateway.key.name,
            }
        },
        "spec": {
            "serviceAccountName": gateway.key.name,
            "containers": [{**container, "readinessProbe": probe}],
        },
    }
    spec = {"replicas": 1, "selector": {"matchLabels": {_NAME: gateway.key.name}}, "template": pod}
    return _made(gateway, "apps", "Deployment", "apps/v1", spec)


def _made(gateway: Manifest, group: str, kind: str, version: str, spec: dict[str, Any]) -> Manifest:
    key = Key(group, kind, gateway.key.namespace, gateway.key.name)
    metadata = {"name": key.name, "namespace": key.namespace, "labels": _labels(gateway)}
    body = {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}
    return Manifest(key, body, gateway.file, gateway.line)
