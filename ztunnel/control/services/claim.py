"""What one ServiceEntry or WorkloadEntry claims by itself, and how its workloads are reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ztunnel.model.address import IPAddress
from ztunnel.state.networking import EntryEndpoint, ServiceEntry, WorkloadEntry

TUNNEL: Final = "networking.istio.io/tunnel"
"""Label of a WorkloadEntry (of a ServiceEntry: for its endpoints): `http`, they speak HBONE."""
_REDIRECTION: Final = "ambient.istio.io/redirection"

Entry = ServiceEntry | WorkloadEntry


def speaks_hbone(entry: Entry) -> bool:
    """Whether the endpoints of an entry are reached by tunnels (istiod: setTunnelProtocol)."""
    return entry.meta.annotations.get(_REDIRECTION) == "enabled" or has_tunnel(labels_of(entry))


def has_tunnel(labels: Mapping[str, str]) -> bool:
    """Whether a workload with these labels speaks HBONE by itself (istiod: model.SupportsTunnel)."""
    return "http" in labels.get(TUNNEL, "").split(",")


def labels_of(entry: Entry) -> Mapping[str, str]:
    """Those by which its workloads are selected; inline endpoints have those of their ServiceEntry."""
    return entry.labels if isinstance(entry, WorkloadEntry) else entry.meta.labels


def as_entry(one: object) -> Entry | None:
    """That, where it is one."""
    return one if isinstance(one, ServiceEntry | WorkloadEntry) else None


def claimed(entry: Entry) -> Iterator[IPAddress]:
    """Every address that an entry names."""
    if isinstance(entry, ServiceEntry):
        yield from virtual_of(entry)
    for one in endpoints_of(entry):
        if one.ip is not None:
            yield one.ip


def virtual_of(entry: ServiceEntry) -> tuple[IPAddress, ...]:
    """All that may be virtual addresses of its services."""
    return (*single_addresses(entry), *(ip for found in (entry.allocated or {}).values() for ip in found))


def single_addresses(entry: ServiceEntry) -> tuple[IPAddress, ...]:
    return tuple(
        network.network_address for network in entry.addresses if network.prefixlen == network.max_prefixlen
    )


def uses_waypoint(labels: Mapping[str, str]) -> bool:
    return labels.get("istio.io/use-waypoint", "none") != "none"


def endpoints_of(entry: Entry) -> tuple[EntryEndpoint, ...]:
    return (entry.endpoint,) if isinstance(entry, WorkloadEntry) else entry.endpoints
