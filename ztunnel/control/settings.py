"""What the control plane has to be told about the mesh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ztunnel.config import Settings

WAYPOINT_CLASS: Final = "ztunnel-waypoint"
ISTIO_WAYPOINT_CLASS: Final = "istio-waypoint"
_NAME: Final = "ztunnel-mesh"
MESH_CONFIG: Final = f"ztunnel-system/{_NAME}"


@dataclass(frozen=True, slots=True)
class MeshSettings:
    """Istio's meshConfig.rootNamespace, trustDomain, trustDomainAliases; CLUSTER_ID,
    CLUSTER_DOMAIN, NETWORK. `waypoint_classes` are those of Gateways of ours; `attach_ready`: nothing is
    attached to one of them before a pod of it was ready once, which the status of the Gateway says from then
    on. `mesh_config`: the ConfigMap, `namespace/name`, that has the mesh config."""

    root_namespace: str = "istio-system"
    trust_domain: str = "cluster.local"
    cluster: str = "Kubernetes"
    cluster_domain: str = "cluster.local"
    network: str = ""
    trust_domain_aliases: tuple[str, ...] = ()
    waypoint_classes: tuple[str, ...] = (WAYPOINT_CLASS,)
    attach_ready: bool = False
    mesh_config: str = MESH_CONFIG


def mesh_settings(settings: Settings) -> MeshSettings:
    """What a process has been told about its mesh."""
    return MeshSettings(
        settings.root_namespace,
        settings.trust_domain,
        settings.cluster,
        settings.cluster_domain,
        settings.network,
        settings.trust_domain_aliases,
        (WAYPOINT_CLASS, ISTIO_WAYPOINT_CLASS) if settings.adopt else (WAYPOINT_CLASS,),
        mesh_config=settings.mesh_config_map or _beside(settings),
    )


def _beside(settings: Settings) -> str:
    """The mesh config of the control plane's own namespace. Who reads a folder may be anybody: a waypoint, or
    a node proxy, each in a namespace of its own."""
    return MESH_CONFIG if settings.manifests is not None else f"{settings.pod_namespace}/{_NAME}"
