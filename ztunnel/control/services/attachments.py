"""Which pods serve which services by endpoint slices, and the workloads that are such endpoints and no pods,
kept up to date."""

from __future__ import annotations

from collections.abc import Mapping

from ztunnel.control.index import Index
from ztunnel.control.services.endpoint import Attached, Name, attach, endpoint_workloads
from ztunnel.control.services.service import Joined
from ztunnel.control.settings import MeshSettings
from ztunnel.model.workload import Workload


class Attachments:
    """By service, by pod and by endpoint."""

    def __init__(self, index: Index, settings: MeshSettings) -> None:
        self._index = index
        self._settings = settings
        self._of_services: dict[Name, tuple[dict[Name, Joined], dict[str, Workload]]] = {}
        self._joined: dict[str, dict[str, dict[Name, Joined]]] = {}
        self._endpoints: dict[str, dict[Name, Workload]] = {}

    def joined(self, namespace: str) -> Mapping[str, Mapping[Name, Joined]]:
        """The services that slices join to the pods of a namespace, by the pods' names; a view."""
        return self._joined.setdefault(namespace, {})

    def attach(self, name: Name) -> tuple[set[Name], list[tuple[str, Workload | None]]]:
        """Read a service's slices anew: the pods for which that changes anything, and what the endpoints that
        are no pods are now, by their uids."""
        service = self._index.service(name)
        attached, others = Attached(), dict[str, Workload]()
        if service is not None and service.kind != "ExternalName":
            attached = attach(service, self._index.slices(service), self._index)
            others = {one.uid: one for one in endpoint_workloads(service, attached, self._settings)}
        before_pods, before_others = self._of_services.pop(name, ({}, {}))
        joined = {pod: (service, ports) for pod, ports in attached.pods.items() if service is not None}
        if joined or others:
            self._of_services[name] = joined, others
        changed = {
            pod for pod in before_pods.keys() | joined.keys() if before_pods.get(pod) != joined.get(pod)
        }
        for pod in changed:
            self._join(pod, name, joined.get(pod))
        uids = before_others.keys() | others.keys()
        return changed, [(uid, self._endpoint(uid, name, others.get(uid))) for uid in uids]

    def _join(self, pod: Name, service: Name, joined: Joined | None) -> None:
        of_namespace = self._joined.setdefault(pod[0], {})
        of_pod = of_namespace.setdefault(pod[1], {})
        of_pod.pop(service, None)
        if joined is not None:
            of_pod[service] = joined
        if not of_pod:
            del of_namespace[pod[1]]

    def _endpoint(self, uid: str, service: Name, workload: Workload | None) -> Workload | None:
        """An endpoint that is no pod. Where slices of several services have made one of the same name, that
        of the first counts."""
        claimants = self._endpoints.setdefault(uid, {})
        claimants.pop(service, None)
        if workload is not None:
            claimants[service] = workload
        if not claimants:
            del self._endpoints[uid]
        return claimants[min(claimants)] if claimants else None
