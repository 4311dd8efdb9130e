"""What runs in each pod of a waypoint: the container, what it is told, and what it mounts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ztunnel.control.settings import MeshSettings
from ztunnel.control.waypoints.overlay import OWN_CONTAINER, Value
from ztunnel.control.waypoints.template import Template
from ztunnel.control.waypoints.use_waypoint import HBONE_PORT
from ztunnel.state.gateway import Gateway

READINESS_PORT: Final = 15021
METRICS_PORT: Final = 15020
_XFCC: Final = "ambient.istio.io/xfcc-include-client-identity"
_STATE, _ROOTS, _TOKENS = "/var/lib/ztunnel", "/var/run/secrets/istio", "/var/run/secrets/tokens"


def container_of(gateway: Gateway, template: Template, settings: MeshSettings) -> Value:
    """Our container, of no rights. It writes to memory only."""
    tells = gateway.meta.annotations.get(_XFCC) == "true"
    told = [{"name": "ZTUNNEL_XFCC", "value": "true"}] if tells else []
    return {
        "name": OWN_CONTAINER,
        "image": template.image,
        "imagePullPolicy": template.pull_policy,
        "args": ["waypoint"],
        "env": [*_env(template, settings), *told],
        "ports": [
            {"name": "mesh", "containerPort": HBONE_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
            {"name": "readiness", "containerPort": READINESS_PORT, "protocol": "TCP"},
        ],
        "readinessProbe": {
            "httpGet": {"path": "/healthz/ready", "port": "readiness"},
            "periodSeconds": 2,
            "failureThreshold": 3,
        },
        "securityContext": {
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": dict(template.resources),
        "volumeMounts": [
            {"name": "token", "mountPath": _TOKENS, "readOnly": True},
            {"name": "root", "mountPath": _ROOTS, "readOnly": True},
            {"name": "state", "mountPath": _STATE},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }


def _env(template: Template, settings: MeshSettings) -> Iterator[Value]:
    for name, path in (
        ("NODE_NAME", "spec.nodeName"),
        ("POD_NAME", "metadata.name"),
        ("POD_NAMESPACE", "metadata.namespace"),
        ("INSTANCE_IP", "status.podIP"),
    ):
        yield {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
    said = {
        "XDS_ADDRESS": template.control,
        "CA_ADDRESS": template.authority or template.control,
        "XDS_ROOT_CA": f"{_ROOTS}/root-cert.pem",
        "CA_ROOT_CA": f"{_ROOTS}/root-cert.pem",
        "AUTH_TOKEN": f"{_TOKENS}/istio-token",
        "CLUSTER_ID": settings.cluster,
        "CLUSTER_DOMAIN": settings.cluster_domain,
        "TRUST_DOMAIN": settings.trust_domain,
        "NETWORK": settings.network,
        "ZTUNNEL_ROOT_NAMESPACE": settings.root_namespace,
        "TERMINATION_GRACE_PERIOD_SECONDS": str(template.grace_seconds),
    }
    yield from ({"name": name, "value": str(value)} for name, value in {**said, **template.env}.items())


def volumes_of(roots: str) -> list[Value]:
    """What it mounts. `roots`: the ConfigMap with the mesh's roots in each namespace."""
    token = {"audience": "istio-ca", "expirationSeconds": 43200, "path": "istio-token"}
    return [
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": token}]}},
        {"name": "root", "configMap": {"name": roots}},
        {"name": "state", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
    ]
