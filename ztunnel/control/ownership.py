"""Whose a name or an address is that a ServiceEntry or WorkloadEntry claims.

What Kubernetes has given to somebody is that one's: addresses of pods and services, names of services below
the cluster's domain. No entry takes them, in whatever namespace. Else Istio's order counts (istio/istio
pilot/pkg/serviceregistry/ambient/services.go, selectWorkloadServices): within a namespace the oldest
ServiceEntry has a host; between namespaces each is there for its own namespace's clients, and the oldest for
all others: that one is canonical. The same order decides about virtual addresses, and about who is at the
address of a workload that speaks HBONE, where no two namespaces can both be right.

An entry in plaintext has its address for nobody but those who call its service: any number may share it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from ztunnel.control.document import Key
from ztunnel.control.index import Index
from ztunnel.control.settings import MeshSettings
from ztunnel.model.address import IPAddress
from ztunnel.state.meta import Meta
from ztunnel.state.networking import EntryEndpoint, Resolution, ServiceEntry, WorkloadEntry

TUNNEL: Final = "networking.istio.io/tunnel"
"""Label of a WorkloadEntry (of a ServiceEntry: for its endpoints): `http`, they speak HBONE."""
_REDIRECTION: Final = "ambient.istio.io/redirection"

Entry = ServiceEntry | WorkloadEntry
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Standing:
    """What of an entry counts. `canonical` are those of `hosts` that it has for the whole mesh; `endpoints`
    are a WorkloadEntry's own one, or a ServiceEntry's inline ones. `refused` says what does not count, and
    why."""

    hosts: tuple[str, ...] = ()
    canonical: frozenset[str] = frozenset()
    addresses: tuple[IPAddress, ...] = ()
    endpoints: tuple[EntryEndpoint, ...] = ()
    refused: tuple[str, ...] = ()


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
        _set(self._entries, key.namespace, key, new)
        for one, there in ((old, None), (new, new)):
            if isinstance(one, ServiceEntry):
                for host in one.hosts:
                    _set(self._by_host, host, key, one if there else None)
            for ip in claimed(one) if one else ():
                _set(self._by_address, ip, key, there)

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
        addresses = tuple(dict.fromkeys(self._addresses(entry, refused)))
        return Standing(
            hosts,
            frozenset(host for host in hosts if self._is_canonical(host, addresses, entry)),
            addresses,
            self._endpoints(entry.endpoints, entry, refused),
            tuple(refused),
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
        for key, other in self._by_host[host].items():
            if key.namespace == mine and _age(other.meta) < _age(entry.meta):
                refused.append(f"host {host} is of the older ServiceEntry {mine}/{key.name}")
                return False
        return True

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
                if isinstance(one, ServiceEntry) and ip in _virtual(one)
            ]
        mine = entry.meta
        return all(one.meta.namespace == mine.namespace or _age(mine) < _age(one.meta) for one in rivals)

    # --- addresses

    def _addresses(self, entry: ServiceEntry, refused: list[str]) -> Iterator[IPAddress]:
        refused += [
            f"address {network} is a range: calls to it are left alone by node proxies"
            for network in entry.addresses
            if network.prefixlen < network.max_prefixlen
        ]
        for ip in _virtual(entry):
            why = self._given(ip)
            if not why and (pod := self._index.on_host(ip)):
                why = f"is that of a node (of Pod {_name(pod.meta)}, which has its network)"
            if not why and entry.resolution is not Resolution.NONE:
                why = _special(ip)
            if why:
                refused.append(f"address {ip} {why}")
            else:
                yield ip

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
        if not speaks_hbone(entry):
            return ""
        if pod := self._index.on_host(one.ip):
            return f"is the address of a node (of Pod {_name(pod.meta)}, which has its network)"
        mine = entry.meta
        for key, other in self._by_address.get(one.ip, {}).items():
            if key.namespace == mine.namespace or one.ip not in _tunnelled(other):
                continue
            if _age(other.meta) < _age(mine):
                return f"is that of the older {key}"
        return ""

    def _given(self, ip: IPAddress) -> str:
        """To whom Kubernetes has given an address, as a predicate."""
        if pod := self._index.owner(ip):
            return f"is that of Pod {_name(pod.meta)}"
        if service := self._index.service_at(ip):
            return f"is that of Service {_name(service.meta)}"
        return ""


def speaks_hbone(entry: Entry) -> bool:
    """Whether the endpoints of an entry are reached by tunnels (istiod: setTunnelProtocol)."""
    return entry.meta.annotations.get(_REDIRECTION) == "enabled" or has_tunnel(labels_of(entry))


def has_tunnel(labels: Mapping[str, str]) -> bool:
    """Whether a workload with these labels speaks HBONE by itself (istiod: model.SupportsTunnel)."""
    return "http" in labels.get(TUNNEL, "").split(",")


def labels_of(entry: Entry) -> Mapping[str, str]:
    """Those by which its workloads are selected; inline endpoints have those of their ServiceEntry."""
    return entry.labels if isinstance(entry, WorkloadEntry) else entry.meta.labels


def claimed(entry: Entry) -> Iterator[IPAddress]:
    """Every address that an entry names."""
    if isinstance(entry, ServiceEntry):
        yield from _virtual(entry)
    for one in _endpoints(entry):
        if one.ip is not None:
            yield one.ip


def _virtual(entry: ServiceEntry) -> tuple[IPAddress, ...]:
    return tuple(
        network.network_address for network in entry.addresses if network.prefixlen == network.max_prefixlen
    )


def _tunnelled(entry: Entry) -> tuple[IPAddress, ...]:
    if not speaks_hbone(entry):
        return ()
    return tuple(one.ip for one in _endpoints(entry) if one.ip is not None)


def _endpoints(entry: Entry) -> tuple[EntryEndpoint, ...]:
    return (entry.endpoint,) if isinstance(entry, WorkloadEntry) else entry.endpoints


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


def _set(where: dict[K, dict[Key, V]], name: K, key: Key, one: V | None) -> None:
    """Put one there, or None: take it out, and the mapping with the last one."""
    if one is not None:
        where.setdefault(name, {})[key] = one
    elif (found := where.get(name)) is not None and found.pop(key, None) is not None and not found:
        del where[name]
