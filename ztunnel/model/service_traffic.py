"""The traffic policies of a service, as they hold for callers of each namespace."""

from __future__ import annotations

from dataclasses import dataclass

from ztunnel.model.service import ServiceName
from ztunnel.model.traffic import NO_TRAFFIC, ClientTls, PortTraffic, Traffic


@dataclass(frozen=True, slots=True)
class SubsetTraffic:
    """Those of one subset, with what it has from its service."""

    name: str
    traffic: PortTraffic


@dataclass(frozen=True, slots=True)
class ClientTraffic:
    """Those that hold for callers of one namespace; empty: of any that has none of its own."""

    namespace: str
    traffic: PortTraffic
    subsets: tuple[SubsetTraffic, ...] = ()

    def at(self, port: int, subset: str) -> Traffic:
        """What holds for a port of the service, or of a subset."""
        found = next((one.traffic for one in self.subsets if one.name == subset), self.traffic)
        return found.at(port)


@dataclass(frozen=True, slots=True)
class ServiceTraffic:
    """Those of one service."""

    service: ServiceName
    clients: tuple[ClientTraffic, ...]

    @property
    def key(self) -> str:
        """The service's `namespace/hostname`."""
        return str(self.service)

    def credentials(self, namespace: str | None = None) -> tuple[ClientTls, ...]:
        """TLS that a Secret is needed for, for callers of that namespace; None: for any."""
        found = self.clients if namespace is None else [self._of(namespace)]
        policies = [
            each
            for one in found
            if one is not None
            for each in (one.traffic, *(subset.traffic for subset in one.subsets))
        ]
        return tuple(tls for each in policies for tls in each.credentials())

    def _of(self, namespace: str) -> ClientTraffic | None:
        found = None
        for one in self.clients:
            if one.namespace == namespace:
                return one
            if not one.namespace:
                found = one
        return found

    def at(self, namespace: str, port: int, subset: str = "") -> Traffic:
        """What holds for a caller of that namespace."""
        found = self._of(namespace)
        return found.at(port, subset) if found is not None else NO_TRAFFIC
