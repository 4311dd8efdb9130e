"""What is doubtful in services, pods and objects of other kinds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ztunnel.analyze.finding import (
    LABELS,
    MISSING,
    NO_ADDRESSES,
    NO_MATCH,
    NOT_IN_AMBIENT,
    PORT_NAME,
    SIDECAR,
    Finding,
)
from ztunnel.analyze.mesh import Mesh, Written
from ztunnel.analyze.metadata import MODE, TEMPLATES
from ztunnel.analyze.policies import found
from ztunnel.state.kube import Pod
from ztunnel.state.networking import WorkloadEntry

_PROTOCOLS: Final = (
    "grpc", "grpc-web", "http", "http2", "https", "mongo", "mysql", "redis", "tcp", "tls", "udp", "hbone"
)  # fmt: skip
_PORT_NAME: Final = re.compile(rf"({'|'.join(_PROTOCOLS)})(-.*)?")
_NAMES: Final = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
_VERSIONS: Final = ("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")
_ONLY_SIDECARS: Final = {
    (
        "networking.istio.io",
        "EnvoyFilter",
    ): "no proxy here is an Envoy to patch; of rate limits RateLimitPolicy says what is wanted",
    ("networking.istio.io", "Sidecar"): "there are no sidecars to configure",
    ("extensions.istio.io", "WasmPlugin"): "no proxy here runs Wasm",
    ("networking.istio.io", "ProxyConfig"): "there are no sidecars to configure",
}
_SIDECAR: Final = "sidecar.istio.io/status"
_WAYPOINT: Final = "istio.io/use-waypoint"
_WAYPOINT_NAMESPACE: Final = "istio.io/use-waypoint-namespace"


def object_findings(mesh: Mesh) -> Iterator[Finding]:
    """All of them."""
    gateways = {
        (one.namespace, one.name) for one in mesh.written if one.kind == "Gateway" and "gateway" in one.group
    }
    for one in mesh.written:
        yield from _one(mesh, one)
        yield from _waypoint(one, gateways)


def _one(mesh: Mesh, one: Written) -> Iterator[Finding]:
    if one.kind == "Service" and not one.group:
        yield from _ports(one)
    elif one.kind == "Pod" or one.kind in TEMPLATES:
        yield from _pods(mesh, one)
    elif (one.group, one.kind) == ("networking.istio.io", "ServiceEntry"):
        yield from _service_entry(mesh, one)
    elif (one.group, one.kind) in _ONLY_SIDECARS:
        yield found(NOT_IN_AMBIENT, one, f"it does nothing: {_ONLY_SIDECARS[one.group, one.kind]}")


def _ports(service: Written) -> Iterator[Finding]:
    """A port's protocol is told by `appProtocol`, or by the first word of its name."""
    for port in service.entries("spec.ports"):
        name = port.get("name", "")
        if port.get("protocol", "TCP") != "TCP" or port.get("appProtocol"):
            continue
        if not isinstance(name, str) or not _PORT_NAME.fullmatch(name):
            what = f"port {port.get('port')}" + (f" ({name})" if name else "")
            message = (
                f"{what} says nothing of its protocol: a waypoint will have to find out. Name it "
                "<protocol>[-<suffix>], such as http or tcp-redis, or set appProtocol"
            )
            yield found(PORT_NAME, service, message)


def _service_entry(mesh: Mesh, one: Written) -> Iterator[Finding]:
    """Where a node proxy does not see which service is called, and where nobody serves it."""
    if not one.get("spec.addresses") and not one.get("status.addresses"):
        message = (
            "without addresses a node proxy cannot tell calls to it from others: they go on as they are, to "
            "where the client's own resolver says"
        )
        yield found(NO_ADDRESSES, one, message)
    wanted = one.labels("spec.workloadSelector.labels").items()
    objects = [each for each in mesh.inventory.objects.values() if each.meta.namespace == one.namespace]
    pods = (each.meta.labels for each in objects if isinstance(each, Pod))
    entries = (each.labels for each in objects if isinstance(each, WorkloadEntry))
    if wanted and not any(wanted <= labels.items() for labels in (*pods, *entries)):
        text = ", ".join(f"{key}={value}" for key, value in sorted(wanted))
        yield found(NO_MATCH, one, f"no pod and no WorkloadEntry has the labels {text}: nobody serves it")


def _pods(mesh: Mesh, one: Written) -> Iterator[Finding]:
    path = TEMPLATES.get(one.kind, "metadata")
    if one.kind == "Pod" and one.entries("metadata.ownerReferences"):
        return  # told of what made it
    if not _in_mesh(mesh, one):
        return
    labels = one.labels(f"{path}.labels")
    lacking = [names[-1] for names in (_NAMES, _VERSIONS) if not any(each in labels for each in names)]
    if lacking:
        message = (
            f"without the label {' and the label '.join(lacking)} metrics and traces name it by its owner"
        )
        yield found(LABELS, one, message)
    annotations = one.get(f"{path}.annotations")
    if isinstance(annotations, dict) and _SIDECAR in annotations:
        yield found(SIDECAR, one, "its pods have a sidecar of Istio's, and stay out of the ambient mesh")


def _in_mesh(mesh: Mesh, one: Written) -> bool:
    """Whether a pod of it is in the mesh, or its namespace wants it there."""
    path = TEMPLATES.get(one.kind, "metadata")
    own = one.labels(f"{path}.labels").get(MODE)
    if own in ("ambient", "none"):
        return own == "ambient"
    return any(
        other.kind == "Namespace" and other.name == one.namespace and other.labels().get(MODE) == "ambient"
        for other in mesh.written
    )


def _waypoint(one: Written, gateways: set[tuple[str, str]]) -> Iterator[Finding]:
    """`istio.io/use-waypoint` names a Gateway of the same namespace, or of that of the second label."""
    labels = one.labels()
    name = labels.get(_WAYPOINT, "none")
    if name == "none":
        return
    own = one.name if one.kind == "Namespace" else one.namespace
    namespace = labels.get(_WAYPOINT_NAMESPACE, own)
    if (namespace, name) not in gateways:
        yield found(MISSING, one, f"{_WAYPOINT} names the Gateway {namespace}/{name}, and there is none")
