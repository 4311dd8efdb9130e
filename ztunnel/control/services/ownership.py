"""Whose a name or an address is that a ServiceEntry or WorkloadEntry claims.

What Kubernetes has given to somebody is that one's: addresses of pods and services, names of services below
the cluster's domain. No entry takes them, in whatever namespace. Else Istio's order counts (istio/istio
pilot/pkg/serviceregistry/ambient/services.go, selectWorkloadServices): within a namespace the oldest
ServiceEntry has a host; between namespaces each is there for its own namespace's clients, and the oldest for
all others: that one is canonical. The same order decides about virtual addresses, and about who is at the
address of a workload that speaks HBONE, where no two namespaces can both be right.

An endpoint in plaintext has its address for nobody but those who call its service: any number may share it.
One that stands behind a waypoint is met by whoever calls its address, as one that speaks HBONE."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ztunnel.control.index import Index
from ztunnel.control.membership import set_entry
from ztunnel.control.services.claim import (
    Entry,
    claimed,
    endpoints_of,
    single_addresses,
    speaks_hbone,
    uses_waypoint,
    virtual_of,
)
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import Key
from ztunnel.model.address import IPAddress
from ztunnel.state.meta import Meta
from ztunnel.state.networking import EntryEndpoint, Resolution, ServiceEntry, WorkloadEntry


@dataclass(frozen=True, slots=True)
class Standing:
    """What of an entry counts. `canonical` are those of `hosts` that it has for the whole mesh; `endpoints`
    are a WorkloadEntry's own one, or a ServiceEntry's inline ones; `allocated`, by host, are addresses out of
    its status. `refused` says what does not count, and why."""

    hosts: tuple[str, ...] = ()
    canonical: frozenset[str] = frozenset()
    addresses: tuple[IPAddress, ...] = ()
    endpoints: tuple[EntryEndpoint, ...] = ()
    refused: tuple[str, ...] = ()
    allocated: Mapping[str, tuple[IPAddress, ...]] = field(default_factory=dict)


class Entries:
    """The entries, by what they claim. Kept up to date by `put`."""

    def __init__(self, index: Index, settings: MeshSettings) -> None:
        self._index = index
        self._domain = f".svc.{settings.cluster_domain}"
        self._entries: dict[str, dict[Key, Entry]] = {}
        self._by_host: dict[str, dict[Key, ServiceEntry]] = {}
        self._by_address: dict[IPAddress, dict[Key, Entry]] = {}

    def put(self, key: Key, old: Entry | None, new: Entry | None) -> None:
        """The entry of that key is now `new`, and was `old`."""
        set_entry(self._entries, key.namespace, key, new)
        for one, there in ((old, None), (new, new)):
            if isinstance(one, ServiceEntry):
                for host in one.hosts:
                    set_entry(self._by_host, host, key, one if there else None)
            for ip in claimed(one) if one else ():
                set_entry(self._by_address, ip, key, there)

    def get(self, key: Key) -> Entry | None:
        """The entry of that key."""
        return self._entries.get(key.namespace, {}).get(key)

    def of(self, namespace: str) -> Iterator[tuple[Key, Entry]]:
        """Those of a namespace, in order of their keys."""
        found = self._entries.get(namespace, {})
        yield from ((key, found[key]) for key in sorted(found))

    @property
    def namespaces(self) -> Iterable[str]:
        """Those with entries."""
        return self._entries.keys()

    def at(self, addresses: Iterable[IPAddress]) -> Iterator[Key]:
        """The entries that claim one of these addresses."""
        for ip in addresses:
            yield from self._by_address.get(ip, ())

    def named(self, host: str) -> Iterator[Key]:
        """The ServiceEntries with that host."""
        yield from self._by_host.get(host, ())

    def rivals(self, entry: Entry) -> Iterator[Key]:
        """All that share a host or an address with that one."""
        if isinstance(entry, ServiceEntry):
            for host in entry.hosts:
                yield from self.named(host)
        yield from self.at(claimed(entry))

    def standing(self, key: Key) -> Standing:
        """What of that entry counts now."""
        entry = self.get(key)
        if entry is None:
            return Standing()
        refused: list[str] = []
        if isinstance(entry, WorkloadEntry):
            return Standing(
                endpoints=self._endpoints((entry.endpoint,), entry, refused), refused=tuple(refused)
            )
        hosts = tuple(host for host in dict.fromkeys(entry.hosts) if self._has_host(host, entry, refused))
        addresses = self._addresses(single_addresses(entry), entry, refused)
        allocated = {
            host: self._addresses(found, entry, refused) for host, found in (entry.allocated or {}).items()
        }
        called = {host: addresses or allocated.get(host, ()) for host in hosts}
        return Standing(
            hosts,
            frozenset(host for host in hosts if self._is_canonical(host, called[host], entry)),
            addresses,
            self._endpoints(entry.endpoints, entry, refused),
            tuple(refused),
            allocated,
        )

    # --- hosts

    def _has_host(self, host: str, entry: ServiceEntry, refused: list[str]) -> bool:
        mine = entry.meta.namespace
        namespace = self._namespace_of(host)
        if namespace is not None and namespace != mine:
            whose = f"namespace {namespace}" if namespace else "more than one namespace"
            refused.append(f"host {host} is a name of services of {whose}")
            return False
        if namespace == mine:
            name = host.removesuffix(f".{mine}{self._domain}")
            service = self._index.service((mine, name))
            if service is not None and service.kind != "ExternalName":
                refused.append(f"host {host} is Service {mine}/{name}")
                return False
        ours = [one.meta for key, one in self._by_host[host].items() if key.namespace == mine]
        oldest = min(ours, key=_age)
        if _age(oldest) < _age(entry.meta):
            refused.append(f"host {host} is of the older ServiceEntry {mine}/{oldest.name}")
        return not _age(oldest) < _age(entry.meta)

    def _namespace_of(self, host: str) -> str | None:
        """Of which namespace's services that is a name; empty: of several; None: of none."""
        if host.startswith("*.") and self._domain.endswith(host[1:]):
            return ""
        if not host.endswith(self._domain):
            return None
        return host.removesuffix(self._domain).rpartition(".")[2].removeprefix("*")

    def _is_canonical(self, host: str, addresses: tuple[IPAddress, ...], entry: ServiceEntry) -> bool:
        """Whether no older one of another namespace has that name, or one of the addresses."""
        rivals = [*self._by_host[host].values()]
        for ip in addresses:
            rivals += [
                one
                for one in self._by_address.get(ip, {}).values()
                if isinstance(one, ServiceEntry) and ip in virtual_of(one)
            ]
        mine = entry.meta
        return all(one.meta.namespace == mine.namespace or _age(mine) < _age(one.meta) for one in rivals)

    # --- addresses

    def _addresses(
        self, wanted: Iterable[IPAddress], entry: ServiceEntry, refused: list[str]
    ) -> tuple[IPAddress, ...]:
        found = []
        for ip in dict.fromkeys(wanted):
            why = self._given(ip) or self._nodes(ip)
            if not why and entry.resolution is not Resolution.NONE:
                why = _special(ip)
            if why := why or self._held_by(ip, entry):
                refused.append(f"address {ip} {why}")
            else:
                found.append(ip)
        return tuple(found)

    def _endpoints(
        self, endpoints: Iterable[EntryEndpoint], entry: Entry, refused: list[str]
    ) -> tuple[EntryEndpoint, ...]:
        found: dict[str, EntryEndpoint] = {}
        for one in endpoints:
            if why := self._why_not(one, entry) or ("stands here twice" if one.address in found else ""):
                refused.append(f"endpoint {one.address or one.network} {why}")
            else:
                found[one.address] = one
        return tuple(found.values())

    def _why_not(self, one: EntryEndpoint, entry: Entry) -> str:
        """Why an endpoint does not count; empty where it does."""
        if one.ip is None:
            return "" if one.name else "has no IP address, which node proxies need"
        if why := self._given(one.ip) or _special(one.ip):
            return why
        if one.ip not in self._held(entry):
            return ""
        return self._nodes(one.ip) or self._held_by(one.ip, entry, virtual=True)

    def _held(self, entry: Entry) -> set[IPAddress]:
        """The addresses at which whoever calls them meets the entry's workloads: those that speak HBONE, or
        may stand behind a waypoint."""
        around = self._index.namespaces.get(entry.meta.namespace)
        inherited = around is not None and uses_waypoint(around.meta.labels)
        return {
            one.ip
            for one in endpoints_of(entry)
            if one.ip is not None
            and (
                speaks_hbone(entry)
                or inherited
                or uses_waypoint(entry.labels if isinstance(entry, WorkloadEntry) else one.labels)
            )
        }

    def _held_by(self, ip: IPAddress, entry: Entry, *, virtual: bool = False) -> str:
        """Which older entry of another namespace has that address: for a workload or, with `virtual`, also
        for a service."""
        found = []
        for key, other in self._by_address.get(ip, {}).items():
            if key.namespace == entry.meta.namespace or _age(entry.meta) < _age(other.meta):
                continue
            is_virtual = virtual and isinstance(other, ServiceEntry) and ip in virtual_of(other)
            if is_virtual or ip in self._held(other):
                found.append((_age(other.meta), key))
        return f"is that of the older {min(found)[1]}" if found else ""

    def _nodes(self, ip: IPAddress) -> str:
        pod = self._index.on_host(ip)
        return f"is that of a node (of Pod {_name(pod.meta)}, which has its network)" if pod else ""

    def _given(self, ip: IPAddress) -> str:
        """To whom Kubernetes has given an address, as a predicate."""
        if pod := self._index.owner(ip):
            return f"is that of Pod {_name(pod.meta)}"
        if service := self._index.service_at(ip):
            return f"is that of Service {_name(service.meta)}"
        return ""


def _special(ip: IPAddress) -> str:
    """What keeps an address from being somebody's; Kubernetes refuses the same ones in EndpointSlices."""
    if ip.is_loopback or ip.is_unspecified:
        return "means another machine to everybody who calls it"
    if ip.is_link_local or ip.is_multicast:
        return "is link-local or multicast, and nobody's"
    return ""


def _age(meta: Meta) -> tuple[str, str, str]:
    """Oldest first; one without a time counts as oldest."""
    return meta.created, meta.namespace, meta.name


def _name(meta: Meta) -> str:
    return f"{meta.namespace}/{meta.name}"
