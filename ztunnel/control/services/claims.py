"""Which workloads and services have an address, to tell where two claim the same."""

from __future__ import annotations

from ztunnel.model.address import IPAddress
from ztunnel.model.service import Service
from ztunnel.model.workload import TunnelProtocol, Workload


class Claims:
    """Addresses of services and of pods in the mesh, by who has them."""

    def __init__(self) -> None:
        self._by_address: dict[IPAddress, set[str]] = {}
        self._twice: set[IPAddress] = set()

    def put(self, name: str, old: Workload | Service | None, new: Workload | Service | None) -> None:
        """What is called `name` is now `new`, and was `old`."""
        before, after = _claimed(old), _claimed(new)
        for ip in before - after:
            found = self._by_address[ip]
            found.discard(name)
            if not found:
                del self._by_address[ip]
            if len(found) < 2:
                self._twice.discard(ip)
        for ip in after - before:
            found = self._by_address.setdefault(ip, set())
            found.add(name)
            if len(found) > 1:
                self._twice.add(ip)

    def texts(self) -> list[str]:
        """A line for each that has an address which another one has, sorted."""
        lines = []
        for ip in self._twice:
            first, *others = sorted(self._by_address[ip])
            lines += [f"{ip} is claimed by {first} and by {other}" for other in others]
        return sorted(lines)


def _claimed(one: Workload | Service | None) -> set[IPAddress]:
    if one is None or (
        isinstance(one, Workload) and (one.host_network or one.protocol is not TunnelProtocol.HBONE)
    ):
        return set()
    if isinstance(one, Service) and one.addresses == one.external:
        return set()  # a ServiceEntry's: several may have one at different ports, as hosts behind one address
    return set(one.addresses)
