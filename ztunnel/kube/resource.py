"""A resource of the Kubernetes API: where it is served and what its objects are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resource:
    """`group` is empty for the core group. `metadata_only`: of its objects nothing else is asked for.
    `custom`: it exists where its CustomResourceDefinition is installed."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    metadata_only: bool = False
    custom: bool = False

    @property
    def api_version(self) -> str:
        """`v1`, `security.istio.io/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", below: str = "") -> str:
        """Of an object, of those of a namespace, or of all. `below` is a subresource: `status`, `token`."""
        root = f"/apis/{self.group}" if self.group else "/api"
        inside = f"/namespaces/{namespace}" if namespace and self.namespaced else ""
        parts = [f"{root}/{self.version}{inside}/{self.plural}", name, below]
        return "/".join(part for part in parts if part)

    def __str__(self) -> str:
        """As RBAC and `kubectl` name it: `pods`, `gateways.gateway.networking.k8s.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False, metadata_only=True)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False, metadata_only=True)
PODS = Resource("", "v1", "pods", "Pod")
SERVICES = Resource("", "v1", "services", "Service")
SECRETS = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
DISRUPTION_BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
POD_AUTOSCALERS = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
GATEWAYS = Resource("gateway.networking.k8s.io", "v1", "gateways", "Gateway", custom=True)
SERVICE_ENTRIES = Resource(
    "networking.istio.io", "v1", "serviceentries", "ServiceEntry", metadata_only=True, custom=True
)
WORKLOAD_ENTRIES = Resource(
    "networking.istio.io", "v1", "workloadentries", "WorkloadEntry", metadata_only=True, custom=True
)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
SIGNING_REQUESTS = Resource(
    "certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", namespaced=False
)
CRDS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition",
    namespaced=False, metadata_only=True,
)  # fmt: skip
