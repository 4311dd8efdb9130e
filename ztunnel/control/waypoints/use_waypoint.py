"""Who names which Gateway as its waypoint, and whom a Gateway admits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ztunnel.control.services.endpoint import Name
from ztunnel.control.source.document import Key, Object
from ztunnel.state import kube
from ztunnel.state.gateway import Gateway, Listener
from ztunnel.state.networking import ServiceEntry, WorkloadEntry

USE: Final = "istio.io/use-waypoint"
USE_NAMESPACE: Final = "istio.io/use-waypoint-namespace"
HBONE_PORT: Final = 15008


def named(key: Key, one: Object) -> Name | None:
    """The Gateway that an object's own label names."""
    if not isinstance(one, kube.Namespace | kube.Service | kube.Pod | ServiceEntry | WorkloadEntry):
        return None
    return name_in(labels_of(one), key.name if isinstance(one, kube.Namespace) else key.namespace)


def labels_of(one: Object) -> Mapping[str, str]:
    """Its labels; of a WorkloadEntry those of its spec as well."""
    return one.labels if isinstance(one, WorkloadEntry) else one.meta.labels


def name_in(labels: Mapping[str, str], namespace: str) -> Name | None:
    """The Gateway that labels of something in `namespace` name; None: they name none, or say so (`none`)."""
    name = labels.get(USE, "none")
    return None if name == "none" else (labels.get(USE_NAMESPACE, namespace), name)


def admits(gateway: Gateway, namespace: str, labels: Mapping[str, str]) -> bool:
    """Whether objects of that namespace may attach, by the listener for tunnels."""
    found = (one for one in gateway.listeners if (one.port, one.protocol) == (HBONE_PORT, "HBONE"))
    listener = next(found, Listener(HBONE_PORT, "HBONE"))
    if listener.admits == "Selector":
        return listener.namespaces is not None and listener.namespaces.selects(labels)
    if listener.admits == "None":
        return False
    return listener.admits == "All" or gateway.meta.namespace == namespace
