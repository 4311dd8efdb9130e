"""A workload: one pod, as Istio's workload.proto describes it (istio/ztunnel src/proto/workload.proto)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from functools import lru_cache

from ztunnel.model.address import IPAddress
from ztunnel.model.identity import SpiffeId
from ztunnel.model.service import Port, ServiceName, Waypoint

# One object for each identity: it is asked for with every connection, and compared and hashed as a key.
_identity = lru_cache(65536)(SpiffeId)


class TunnelProtocol(Enum):
    """How a workload is reached: over HBONE, or as it is."""

    NONE = 0
    HBONE = 1


class SameNode(StrEnum):
    """How two enrolled pods of one node talk (`sameNode`, annotation `ztunnel.io/same-node`).

    AUTO is direct except where STRICT covers the destination, DIRECT counts the kernel's word as enough even
    there, MTLS always tunnels.
    """

    AUTO = "auto"
    DIRECT = "direct"
    MTLS = "mtls"


class LeftTo(StrEnum):
    """Who serves a pod that is opted in, where our node proxy does not: its own sidecar, or Istio's ztunnel,
    for which Istio's CNI agent has enrolled it."""

    NOBODY = ""
    SIDECAR = "sidecar"
    ISTIO = "istio-cni"


class WorkloadKind(StrEnum):
    """What owns the pod; the value is the name in HBONE's `baggage` header."""

    DEPLOYMENT = "deployment"
    CRONJOB = "cronjob"
    POD = "pod"
    JOB = "job"


@dataclass(frozen=True, slots=True)
class Locality:
    """Where a workload runs, from coarse to fine; empty where unknown."""

    region: str = ""
    zone: str = ""
    subzone: str = ""


@dataclass(frozen=True, slots=True)
class Workload:
    """One pod. `uid` is `<cluster>//Pod/<namespace>/<name>`; `services` maps each service the pod is an
    endpoint of to the ports by which it serves it (service port to this pod's own port). `forwards`: what the
    pod only forwards is left alone (annotation `ztunnel.io/forwarding`). One that is not healthy but
    `draining` terminates and still serves: it is called where no endpoint is healthy. `pod_uid` is what the
    kubelet of its node knows the pod by; istiod does not tell it. `gateway`: it brings calls from outside
    into the mesh, and may choose the endpoints of services itself. `left_to`: who serves the pod in the place
    of our node proxy, though it is opted in."""

    uid: str
    name: str
    namespace: str
    service_account: str = "default"
    trust_domain: str = "cluster.local"
    addresses: tuple[IPAddress, ...] = ()
    node: str = ""
    protocol: TunnelProtocol = TunnelProtocol.NONE
    same_node: SameNode = SameNode.AUTO
    network: str = ""
    cluster: str = "Kubernetes"
    kind: WorkloadKind = WorkloadKind.POD
    workload_name: str = ""
    canonical_name: str = ""
    canonical_revision: str = "latest"
    services: Mapping[ServiceName, tuple[Port, ...]] = field(default_factory=dict)
    authorization_policies: tuple[str, ...] = ()
    waypoint: Waypoint | None = None
    healthy: bool = True
    draining: bool = False
    host_network: bool = False
    forwards: bool = False
    native_tunnel: bool = False
    capacity: int = 1
    hostname: str = ""
    locality: Locality = Locality()
    pod_uid: str = ""
    left_to: LeftTo = LeftTo.NOBODY
    gateway: bool = False

    @property
    def identity(self) -> SpiffeId:
        """The identity that a certificate has to prove for this workload."""
        return _identity(self.trust_domain, self.namespace, self.service_account)

    @property
    def enrolled(self) -> bool:
        """Whether the workload is in the mesh: its node proxy serves HBONE for it."""
        return self.protocol is TunnelProtocol.HBONE and not self.native_tunnel and not self.host_network

    @property
    def may_be_enrolled(self) -> bool:
        """Whether its node proxy may enroll it: also a pod that is said to be Istio's, where that is true no
        more."""
        return self.enrolled or self.left_to is LeftTo.ISTIO
