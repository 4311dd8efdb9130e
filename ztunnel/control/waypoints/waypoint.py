"""Which waypoint stands before a service or workload, as istiod finds it (istio/istio
pilot/pkg/serviceregistry/ambient/waypoints.go).

The label `istio.io/use-waypoint` of an object, else of its namespace, names a Gateway. It serves where its
controller has given it an address, its listener admits the object's namespace, and it is for that traffic; an
object whose own label names one that does not has none, and says so.

A Gateway of our own class (of Istio's as well, where an istiod is to be taken over) is served by the
Service that is called as it is, or has the label `gateway.networking.k8s.io/gateway-name`, and takes tunnels
on 15008.

In a cluster what names such a Gateway is attached to it when a pod of it was ready once: until then calls go
as before. From then on they go by the waypoint or nowhere, be it that its pods, its Service or the Gateway
itself are gone. That it was so is remembered where everybody can see it, by the addresses in the Gateway's
status and by the condition of each service and ServiceEntry; and of each Gateway for as long as anything
names it (`served`), so that a pod that comes after the Gateway has gone is not called past it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from operator import itemgetter
from typing import Final

from ztunnel.control.index import Index
from ztunnel.control.membership import set_member
from ztunnel.control.services.endpoint import Name
from ztunnel.control.services.service import service_name
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import Key, Object
from ztunnel.control.waypoints.use_waypoint import HBONE_PORT, USE, admits, labels_of, name_in, named
from ztunnel.errors import PeerError
from ztunnel.model.address import parse_ip
from ztunnel.model.service import ServiceName, Waypoint
from ztunnel.state import kube
from ztunnel.state.gateway import Gateway, GatewayClass

_FOR: Final = "istio.io/waypoint-for"
GATEWAY_NAME: Final = "gateway.networking.k8s.io/gateway-name"
MANAGED: Final = "gateway.istio.io/managed"
_NO_SERVICES: Final = ("istio.io-mesh-controller", "istio.io-eastwest-controller")
CONTROLLER: Final = "ztunnel.io/waypoint-controller"
"""Of our own GatewayClass."""

MISSING: Final = "WaypointMissing"
"""The reason of whatever was attached to a waypoint that is gone."""
_MOST_NAME: Final = 63


class Traffic(Enum):
    """What is called; the values are those of `istio.io/waypoint-for` that admit it."""

    SERVICE = ("service", "all")
    WORKLOAD = ("workload", "all")


@dataclass(frozen=True, slots=True)
class Binding:
    """What an object's waypoint is. `name` is the Gateway's, `namespace/name`, empty where none is named;
    `reason` and `message` say why it does not serve, in istiod's words."""

    name: str = ""
    waypoint: Waypoint | None = None
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class GatewayState:
    """Of a Gateway of ours: what is wrong with it, if anything, with its reason; the service that serves it;
    and whether it serves, or has ever done so."""

    invalid: str
    service: ServiceName | None
    ready: bool = True
    reason: str = "ListenersNotValid"


class Waypoints:
    """Gateways, their classes, and who names them. Kept up to date by `put`.

    Attributes:
        parameters: what is wrong with the ConfigMaps of Gateways of ours; kept by who reads these.
    """

    def __init__(self, index: Index, settings: MeshSettings) -> None:
        self._index = index
        self._settings = settings
        self._gateways: dict[Name, Gateway] = {}
        self._classes: dict[str, GatewayClass] = {}
        self._of_class: dict[str, set[Name]] = {}
        self._naming: dict[Name, dict[Key, Mapping[str, str]]] = {}
        self._served: set[Name] = set()
        self.parameters: dict[Name, str] = {}

    def put(self, key: Key, old: Object | None, new: Object | None) -> None:
        """The object of that key is now `new`, and was `old`."""
        for one, there in ((old, False), (new, True)):
            if isinstance(one, Gateway):
                set_member(self._of_class, one.class_name, (key.namespace, key.name), there)
            elif one is not None and (name := named(key, one)) is not None:
                self._name(name, key, labels_of(one) if there else None)
        if isinstance(new, Gateway):
            self._gateways[key.namespace, key.name] = new
        elif isinstance(old, Gateway):
            del self._gateways[key.namespace, key.name]
        if isinstance(new, GatewayClass):
            self._classes[key.name] = new
        elif isinstance(old, GatewayClass):
            del self._classes[key.name]

    def _name(self, gateway: Name, key: Key, labels: Mapping[str, str] | None) -> None:
        if labels is not None:
            self._naming.setdefault(gateway, {})[key] = labels
        elif (found := self._naming.get(gateway)) is not None:
            found.pop(key, None)
            if not found:
                del self._naming[gateway]

    # --- which have served

    @property
    def served(self) -> frozenset[Name]:
        """The Gateways that have served and that something names: to be remembered over restarts."""
        return frozenset(self._served & self._naming.keys())

    def recall(self, served: Iterable[Name]) -> None:
        """These have served, an earlier process says."""
        self._served.update(served)

    def note(self, gateway: Name) -> None:
        """Something of that Gateway is another: remember it if it serves."""
        if self.waypoint(gateway) is not None:
            self._served.add(gateway)

    def forget(self) -> None:
        """Forget those that are gone and that nothing names any more; all changes of a moment are taken
        over."""
        self._served -= {one for one in self._served if one not in self._gateways and one not in self._naming}

    def of_class(self, name: str) -> Iterable[Name]:
        """The Gateways of that class."""
        return self._of_class.get(name, ())

    def class_of(self, gateway: Name) -> str:
        """The class of a Gateway; empty where there is none of that name."""
        found = self._gateways.get(gateway)
        return found.class_name if found is not None else ""

    def deployed(self) -> dict[Name, Gateway]:
        """The Gateways of ours that ask for pods: without those that are wrong, that somebody runs pods for
        by hand, or that are being deleted."""
        return {
            name: one
            for kind in self._settings.waypoint_classes
            for name in sorted(self._of_class.get(kind, ()))
            if not (one := self._gateways[name]).by_hand and not one.meta.deleting and not any(_fault_of(one))
        }

    def naming(self, gateway: Name) -> Iterable[Key]:
        """The namespaces, services, pods and entries whose own label names that Gateway."""
        return self._naming.get(gateway, ())

    def touched_by(self, key: Key, one: Object) -> Iterator[Name]:
        """The Gateways that mean something else when that object changes."""
        if isinstance(one, Gateway):
            yield key.namespace, key.name
        elif isinstance(one, GatewayClass):
            yield from self._of_class.get(key.name, ())
        elif isinstance(one, kube.Service):
            for name in {key.name, one.meta.labels.get(GATEWAY_NAME, key.name)}:
                if (key.namespace, name) in self._gateways:
                    yield key.namespace, name
        elif isinstance(one, kube.Pod) and self._settings.attach_ready:
            for there, gateway in self._gateways.items():
                if there[0] == key.namespace and not gateway.addresses and self.state(there) is not None:
                    yield there

    def problems(self) -> Iterator[str]:
        """A line for each object whose own label names a waypoint that does not serve it, in order."""
        for key, labels in sorted(self._named_ones(), key=itemgetter(0)):
            traffic = Traffic.WORKLOAD if key.kind in ("Pod", "WorkloadEntry") else Traffic.SERVICE
            namespace = key.name if key.kind == "Namespace" else key.namespace
            found = self.bind(labels, namespace, traffic)
            if key.kind == "Namespace" and found.reason == "UnsupportedTrafficType":
                continue  # it is for the workloads of the namespace
            if found.reason:
                yield f"{key}: {found.message}: HTTP rules are not applied"

    def _named_ones(self) -> Iterator[tuple[Key, Mapping[str, str]]]:
        for found in self._naming.values():
            yield from found.items()

    # --- whose waypoint

    def bind(
        self,
        labels: Mapping[str, str],
        namespace: str,
        traffic: Traffic,
        bound: str = "",
        *,
        guarded: bool = False,
    ) -> Binding:
        """The waypoint of an object with these labels in that namespace. `bound` is the one,
        `namespace/name`, that it has been attached to; `guarded`: there are policies that only its waypoint
        can enforce."""
        if traffic is Traffic.SERVICE and labels.get(MANAGED) in _NO_SERVICES:
            return Binding()
        if GATEWAY_NAME in labels:
            return Binding()  # a waypoint itself
        around = self._index.namespaces.get(namespace)
        inherited = around.meta.labels if around is not None else {}
        own = USE in labels
        name = name_in(labels if own else inherited, namespace)
        if name is None:
            return Binding()
        text, gateway = f"{name[0]}/{name[1]}", self._gateways.get(name)
        waypoint = self.waypoint(name)
        if gateway is None or waypoint is None:
            was = bound == text or name in self._served
            return self._missing(name, attached=was, guarded=guarded)
        if not admits(gateway, namespace, inherited):
            message = f'we are not permitted to attach to waypoint "{text}" (missing allowedRoutes?)'
            return self._refused(Binding(text, None, "AttachmentDenied", message), guarded=guarded)
        if self._traffic(gateway) not in traffic.value:
            if traffic is Traffic.WORKLOAD and not own:
                return Binding()
            message = (
                f'attempting to bind to traffic type "{traffic.value[0]}" which the waypoint "{text}" does '
                "not support"
            )
            return self._refused(Binding(text, None, "UnsupportedTrafficType", message), guarded=guarded)
        return Binding(text, waypoint)

    def _refused(self, binding: Binding, *, guarded: bool) -> Binding:
        """One that its waypoint does not take; calls go past it, but where policies would not be enforced
        then: those go to a waypoint that there is not."""
        if not guarded:
            return binding
        nowhere = Waypoint(ServiceName("", "not-attached.invalid"), None, HBONE_PORT)
        message = f"{binding.message}: calls are refused, as there are policies that it has to enforce"
        return replace(binding, waypoint=nowhere, message=message)

    def _missing(self, name: Name, *, attached: bool, guarded: bool) -> Binding:
        """One that is not ready: calls go as before, but those of what was attached to it, or has policies
        that would not be enforced then."""
        text = f"{name[0]}/{name[1]}"
        nobody = Waypoint(service_name((name[0], name[1]), self._settings), None, HBONE_PORT)
        if attached:
            message = f'waypoint "{text}" is gone: calls are refused until it is back, or {USE} names another'
            return Binding(text, nobody, MISSING, message)
        message = f'waypoint "{text}" is not ready'
        if guarded:
            message += ": calls are refused, as there are policies that it has to enforce"
        return Binding(text, nobody if guarded else None, "WaypointIsNotReady", message)

    def waypoint(self, name: Name) -> Waypoint | None:
        """Where a Gateway is, if it is anywhere: by a name rather than by an address."""
        gateway = self._gateways.get(name)
        if gateway is None:
            return None
        state = self.state(name)
        if state is not None and state.service is not None:
            serves = gateway.addresses or (state.ready and not state.invalid)
            return Waypoint(state.service, None, HBONE_PORT) if serves else None
        for kind, value in gateway.addresses:
            if kind == "Hostname" and value:
                return Waypoint(ServiceName(name[0], value), None, HBONE_PORT)
        for kind, value in gateway.addresses:
            if kind == "IPAddress":
                try:
                    return Waypoint(None, parse_ip(value), HBONE_PORT)
                except PeerError:
                    continue
        return None

    def state(self, name: Name) -> GatewayState | None:
        """How a Gateway of ours is; None where it is somebody else's."""
        gateway = self._gateways.get(name)
        if gateway is None or gateway.class_name not in self._settings.waypoint_classes:
            return None
        reason, invalid = _fault_of(gateway)
        if not invalid and name in self.parameters:
            reason, invalid = "InvalidParameters", self.parameters[name]
        service = self._service_of(name)
        ready = service is not None and (bool(gateway.addresses) or self._is_served(service))
        host = service_name(service.meta.full_name, self._settings) if service is not None else None
        return GatewayState(invalid, host, ready, reason)

    def _is_served(self, service: kube.Service) -> bool:
        """Whether a pod of it is ready, where that counts."""
        if not self._settings.attach_ready or not service.selector:
            return True
        pods = self._index.pods.get(service.meta.namespace, {}).values()
        return any(
            pod.ready and service.selector.items() <= pod.meta.labels.items() and not pod.meta.deleting
            for pod in pods
        )

    def _service_of(self, name: Name) -> kube.Service | None:
        services = self._index.services.get(name[0], {})
        labelled = sorted(
            one.meta.name for one in services.values() if one.meta.labels.get(GATEWAY_NAME) == name[1]
        )
        for each in (*labelled, name[1]):
            found = services.get(each)
            if found is not None and any(port.port == HBONE_PORT for port in found.ports):
                return found
        return None

    def _traffic(self, gateway: Gateway) -> str:
        """What it is for: its own label, else that of its class, else services."""
        of_class = self._classes.get(gateway.class_name)
        wanted = [gateway.meta.labels.get(_FOR), of_class.meta.labels.get(_FOR) if of_class else None]
        return next((one for one in wanted if one is not None), "service")


def _fault_of(gateway: Gateway) -> tuple[str, str]:
    """Reason and text of what is wrong with one of ours; both empty where nothing is."""
    if [(one.port, one.protocol) for one in gateway.listeners] != [(HBONE_PORT, "HBONE")]:
        return "ListenersNotValid", f'Expected a single listener on port {HBONE_PORT} with protocol "HBONE"'
    parameters = gateway.infrastructure.parameters
    if parameters and parameters.partition(" ")[0] != "ConfigMap":
        text = f"spec.infrastructure.parametersRef: {parameters}: only a ConfigMap is read"
        return "InvalidParameters", text
    if len(gateway.meta.name) > _MOST_NAME:
        return "Invalid", f"metadata.name: a Service cannot have a name of more than {_MOST_NAME} letters"
    return "", ""
