"""Objects that route, out of short texts."""

from ztunnel.control.routes.registry import Registry, View
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.inventory import Inventory, gather
from ztunnel.model.route_policy import RetryDefault
from ztunnel.model.service import Port, Service, ServiceName, Waypoint


def manifest(kind, name, spec, namespace="shop", created=""):
    """One of networking.istio.io or of the Gateway API."""
    of_gateway_api = kind.endswith("Route") or kind == "ReferenceGrant"
    group = "gateway.networking.k8s.io" if of_gateway_api else "networking.istio.io"
    date = f', creationTimestamp: "{created}"' if created else ""
    return (
        f"apiVersion: {group}/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}{date}}}\n"
        f"spec: {spec}\n"
    )


def read(*texts):
    """The objects of manifests, by their keys."""
    inventory = gather({"x.yaml": "---\n".join(texts)}, Inventory())
    assert inventory.faults == ()
    return inventory.objects


def service(name, *ports, namespace="shop", waypoint=""):
    """A Service, with a waypoint of a namespace."""
    where = Waypoint(ServiceName(waypoint, f"w.{waypoint}.svc.cluster.local"), None) if waypoint else None
    return Service(
        name, namespace, f"{name}.{namespace}.svc.cluster.local",
        ports=tuple(Port(port, port) for port in ports or (80,)), waypoint=where,
    )  # fmt: skip


def view(*services, objects=(), retries=RetryDefault()):  # noqa: B008 (a frozen value)
    """What a conversion sees of these."""
    registry = Registry(MeshSettings())
    for one in services:
        list(registry.put_service(None, one))
    for key, one in dict(objects).items():
        list(registry.put(key, None, one))
    list(registry.put_retries(retries))
    return View(registry)
