"""The pods that are attached to waypoints by their own addresses, and what these serve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Final

from ztunnel.control.membership import set_member
from ztunnel.control.waypoints.scope import Handle, handle_of
from ztunnel.model.service import ServiceName
from ztunnel.model.workload import Workload

_NONE: Final[Collection[str]] = ()
_NO_SERVICES: Final[Collection[ServiceName]] = ()


class Behind:
    """Kept up to date by `put`."""

    def __init__(self) -> None:
        self._pods: dict[Handle, set[str]] = {}
        self._services: dict[Handle, Counter[ServiceName]] = {}

    def pods(self, handle: Handle) -> Collection[str]:
        """The uids of the pods that name their waypoint so."""
        return self._pods.get(handle, _NONE)

    def services(self, handle: Handle) -> Collection[ServiceName]:
        """What these pods serve."""
        return self._services.get(handle, _NO_SERVICES)

    def put(self, uid: str, old: Workload | None, new: Workload | None) -> set[Handle]:
        """A pod comes, goes or is another one; the waypoints whose `services` are others now, or that have
        pods now, or none any more. One more pod of the same services is no such change."""
        before, now = _attached(old), _attached(new)
        changed = set[Handle]()
        had = {handle: handle in self._pods for handle, _ in (*before, *now)}
        for handle, services in before:
            set_member(self._pods, handle, uid, False)
            counts = self._services[handle]
            for service in services:
                counts[service] -= 1
        for handle, services in now:
            set_member(self._pods, handle, uid, True)
            counts = self._services.setdefault(handle, Counter())
            for service in services:
                if service not in counts:
                    changed.add(handle)
                counts[service] += 1
        for handle, services in before:
            gone = [service for service in services if not self._services[handle][service]]
            changed.update([handle] if gone else [])
            for service in gone:
                del self._services[handle][service]
            if handle not in self._pods:
                del self._services[handle]
        return changed | {handle for handle, some in had.items() if some is not (handle in self._pods)}


def _attached(pod: Workload | None) -> list[tuple[Handle, Iterable[ServiceName]]]:
    """How it names its waypoint, and what it serves."""
    handle = handle_of(pod.waypoint) if pod is not None else None
    return [(handle, pod.services)] if pod is not None and handle is not None else []
