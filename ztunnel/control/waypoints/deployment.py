"""What a waypoint is made of in a cluster: the objects that a Gateway of ours asks for (istio/istio
manifests/charts/istio-control/istio-discovery/files/waypoint.yaml).

All of them are owned by their Gateway, so that Kubernetes removes them with it. What each pod may do is
nothing: it is a user of its own without capabilities, and writes nowhere but to memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from ztunnel.control.settings import MeshSettings
from ztunnel.control.waypoints.container import METRICS_PORT, READINESS_PORT, container_of, volumes_of
from ztunnel.control.waypoints.overlay import OVERLAYS, Value, lay_over
from ztunnel.control.waypoints.template import Template
from ztunnel.control.waypoints.use_waypoint import HBONE_PORT
from ztunnel.control.waypoints.waypoint import GATEWAY_NAME, MANAGED
from ztunnel.kube.resource import (
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    GATEWAYS,
    POD_AUTOSCALERS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Resource,
)
from ztunnel.state.gateway import Gateway

MANAGED_BY_US: Final = "ztunnel.io-waypoint-controller"
"""The value of `gateway.istio.io/managed`."""
_ACCOUNT: Final = "gateway.istio.io/service-account"
_NAME: Final = "gateway.istio.io/name-override"
_SERVICE_TYPE: Final = "networking.istio.io/service-type"
_REPLICAS: Final = "ztunnel.io/replicas"
_AUTO: Final = "auto"
_USER: Final = 65532

NO_OVERLAYS: Final[tuple[Mapping[str, Value], ...]] = ()
_OVERLAY: Final = {f"{name[0].upper()}{name[1:]}": name for name in OVERLAYS}
"""By the kind of an object the name of what is laid over it."""


class Part(NamedTuple):
    """One object of a waypoint, whole, as it is applied; `scaled`: of a Deployment, that others say how many
    pods it has."""

    resource: Resource
    value: Value
    scaled: bool = False

    @property
    def name(self) -> str:
        """Its name; its namespace is its Gateway's."""
        return str(self.value["metadata"]["name"])


def name_of(gateway: Gateway) -> str:
    """What its Deployment and Service are called."""
    return gateway.meta.annotations.get(_NAME) or gateway.meta.name


def render(
    gateway: Gateway,
    template: Template,
    settings: MeshSettings,
    roots: str,
    overlays: Sequence[Mapping[str, Value]] = NO_OVERLAYS,
) -> Iterator[Part]:
    """The objects of a waypoint, in the order in which they are applied. `roots`: the ConfigMap with the
    mesh's roots in each namespace; `overlays`: what is wanted otherwise, each as `read_overlays` gives it,
    the later ones over the earlier.

    Raises:
        BadOverlay: one of these makes no sense.
    """
    name, parts = name_of(gateway), list[Part]()
    if not gateway.meta.annotations.get(_ACCOUNT):
        account = {**_head(gateway, SERVICE_ACCOUNTS, name), "automountServiceAccountToken": False}
        parts.append(Part(SERVICE_ACCOUNTS, account))
    parts.append(Part(SERVICES, {**_head(gateway, SERVICES, name), "spec": _service(gateway)}))
    spec = _deployment(gateway, template, settings, roots)
    scaler = any("horizontalPodAutoscaler" in one for one in overlays)
    if scaler:
        spec.pop("replicas", None)
    scaled = scaler or gateway.meta.annotations.get(_REPLICAS) == _AUTO
    parts.append(Part(DEPLOYMENTS, {**_head(gateway, DEPLOYMENTS, name), "spec": spec}, scaled))
    budget: Value = {"selector": {"matchLabels": _selector(gateway)}}
    if not any(_says_how_many(one.get("podDisruptionBudget", {})) for one in overlays):
        budget["maxUnavailable"] = 1
    parts.append(Part(DISRUPTION_BUDGETS, {**_head(gateway, DISRUPTION_BUDGETS, name), "spec": budget}))
    if scaler:
        target = {"apiVersion": DEPLOYMENTS.api_version, "kind": DEPLOYMENTS.kind, "name": name}
        scaling = {"scaleTargetRef": target, "maxReplicas": 1}
        parts.append(Part(POD_AUTOSCALERS, {**_head(gateway, POD_AUTOSCALERS, name), "spec": scaling}))
    for part in parts:
        made, key = part.value, _OVERLAY[part.resource.kind]
        for one in overlays:
            made = lay_over(made, one[key]) if key in one else made
        yield part._replace(value=made)


def _says_how_many(overlay: Value) -> bool:
    """Whether a PodDisruptionBudget says so itself: it cannot have both of the ways to."""
    spec = overlay.get("spec")
    return isinstance(spec, dict) and ("minAvailable" in spec or "maxUnavailable" in spec)


def _head(gateway: Gateway, resource: Resource, name: str) -> Value:
    meta = gateway.meta
    owner = {
        "apiVersion": GATEWAYS.api_version,
        "kind": GATEWAYS.kind,
        "name": meta.name,
        "uid": meta.uid,
    }
    metadata: Value = {
        "name": name,
        "namespace": meta.namespace,
        "labels": {**gateway.infrastructure.labels, **_labels(gateway)},
        "ownerReferences": [owner],
    }
    annotations = dict(gateway.infrastructure.annotations)
    if resource is SERVICES:
        annotations = {"networking.istio.io/traffic-distribution": "PreferClose", **annotations}
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}


def _selector(gateway: Gateway) -> dict[str, str]:
    return {GATEWAY_NAME: gateway.meta.name}


def _labels(gateway: Gateway) -> dict[str, str]:
    return {**_selector(gateway), MANAGED: MANAGED_BY_US}


def _service(gateway: Gateway) -> Value:
    ports: list[Value] = [{"name": "status-port", "port": READINESS_PORT, "protocol": "TCP"}]
    for each in gateway.listeners:
        port: Value = {"name": each.name or f"port-{each.port}", "port": each.port, "protocol": "TCP"}
        if each.port == HBONE_PORT:
            port["appProtocol"] = "hbone"
        ports.append(port)
    kind = gateway.meta.annotations.get(_SERVICE_TYPE) or "ClusterIP"
    return {"type": kind, "ipFamilyPolicy": "PreferDualStack", "selector": _selector(gateway), "ports": ports}


def _deployment(gateway: Gateway, template: Template, settings: MeshSettings, roots: str) -> Value:
    annotations, labels = dict(template.pod_annotations), _pod_labels(gateway, template, settings)
    if template.scraped:
        scrape = {"scrape": "true", "port": str(METRICS_PORT), "path": "/metrics"}
        annotations |= {f"prometheus.io/{name}": one for name, one in scrape.items()}
    annotations |= gateway.infrastructure.annotations
    spec: Value = {
        **template.placement,
        "serviceAccountName": gateway.meta.annotations.get(_ACCOUNT) or name_of(gateway),
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": template.grace_seconds,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": _selector(gateway)},
            }
        ],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container_of(gateway, template, settings)],
        "volumes": volumes_of(roots),
    }
    spec["nodeSelector"] = {"kubernetes.io/os": "linux", **template.placement.get("nodeSelector", {})}
    if template.pull_secrets:
        spec["imagePullSecrets"] = [{"name": each} for each in template.pull_secrets]
    if template.priority_class:
        spec["priorityClassName"] = template.priority_class
    metadata: Value = {"labels": labels}
    if annotations:
        metadata["annotations"] = annotations
    made: Value = {
        "selector": {"matchLabels": _selector(gateway)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": {"metadata": metadata, "spec": spec},
    }
    if (replicas := _replicas(gateway, template)) is not None:
        made["replicas"] = replicas
    return made


def _replicas(gateway: Gateway, template: Template) -> int | None:
    """How many pods; None where it is left to others, as to a HorizontalPodAutoscaler: by `auto`, or where
    nobody asks for more than the one that Kubernetes makes by itself. What is applied is ours, and would be
    set back again and again (envoyproxy/gateway issue 5751)."""
    said = gateway.meta.annotations.get(_REPLICAS, "")
    if said.isascii() and said.isdigit():
        return int(said)
    return template.replicas if template.replicas != 1 and said != _AUTO else None


def _pod_labels(gateway: Gateway, template: Template, settings: MeshSettings) -> dict[str, str]:
    """Those by which it is known to be none of the mesh's pods and to take tunnels come last."""
    made = {
        **template.pod_labels,
        "sidecar.istio.io/inject": "false",
        "service.istio.io/canonical-name": name_of(gateway),
        "service.istio.io/canonical-revision": "latest",
        **gateway.infrastructure.labels,
        **_labels(gateway),
        "istio.io/dataplane-mode": "none",
        "networking.istio.io/tunnel": "http",
    }
    if settings.network:
        made["topology.istio.io/network"] = settings.network
    return made
