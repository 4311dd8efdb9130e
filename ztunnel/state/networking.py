"""Istio's entries read from manifests, strictly: what is outside of the cluster, or runs beside its pods.

Fields are those of networking.istio.io/v1 (v1beta1 and v1alpha3 are the same schema); what else is checked is
what istiod's validation and the schema of its CustomResourceDefinitions refuse (istio/istio
pkg/config/validation: ValidateServiceEntry, ValidateWorkloadEntry). Whose a name or an address is, is not
checked here: that depends on others (`control/services/ownership.py`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_interface

from ztunnel.errors import PeerError
from ztunnel.model.address import IPAddress, IPNetwork, parse_ip
from ztunnel.model.workload import Locality
from ztunnel.state.bound import read_bound
from ztunnel.state.field import Field
from ztunnel.state.istio import parse_block
from ztunnel.state.meta import Meta, read_choice, read_ip, read_labels, read_meta, read_port


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_UNIX = "unix://"
_NOWHERE = Locality()
_HOST = re.compile(r"(\*\.)?[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?)*")
_PORT_NAME = re.compile(r"[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?")
_ACCOUNT = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_PROTOCOLS = _words("""auto doublehbone grpc grpc-web hbone http http2 http_proxy https mongo mysql redis tcp
tls udp""")
_FIELDS = _words("""addresses endpoints exportTo hosts location ports resolution subjectAltNames
workloadSelector""")
_ENDPOINT_FIELDS = _words("address labels locality network ports serviceAccount weight")


class Resolution(StrEnum):
    """How the endpoints of a ServiceEntry are found."""

    NONE = "NONE"
    STATIC = "STATIC"
    DNS = "DNS"
    DNS_ROUND_ROBIN = "DNS_ROUND_ROBIN"
    DYNAMIC_DNS = "DYNAMIC_DNS"

    @property
    def by_name(self) -> bool:
        """Whether endpoints may be names, and the hosts are the endpoints where there are none."""
        return self not in (Resolution.NONE, Resolution.STATIC)


@dataclass(frozen=True, slots=True)
class EntryEndpoint:
    """A WorkloadEntry's spec, which a ServiceEntry has inline. `address` is as it is written; `ip` is None
    where it is a name, a unix socket, or only the network is given. `weight` 0: none is given."""

    address: str
    ip: IPAddress | None
    ports: Mapping[str, int]
    labels: Mapping[str, str]
    network: str = ""
    locality: Locality = _NOWHERE
    weight: int = 0
    service_account: str = ""

    @property
    def name(self) -> str:
        """The host name that has to be resolved; empty where there is none."""
        return "" if self.ip is not None or self.address.startswith(_UNIX) else self.address


@dataclass(frozen=True, slots=True)
class WorkloadEntry:
    """One workload that is no pod. `labels` are those of its metadata and of its spec, of which the metadata
    counts where both have one."""

    meta: Meta
    endpoint: EntryEndpoint
    labels: Mapping[str, str]
    healthy: bool = True


@dataclass(frozen=True, slots=True)
class EntryPort:
    """A TCP port of a ServiceEntry; `target` is that of its endpoints, `protocol` is in small letters, or
    empty."""

    name: str
    port: int
    target: int
    protocol: str = ""


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """Services that Kubernetes does not know, one for each of `hosts` (in small letters). `selector` is None
    where no workloads are selected. `allocated`, by host, are addresses that somebody has given it in its
    status; `bound` is the waypoint, `namespace/name`, that it has been attached to, by that."""

    meta: Meta
    hosts: tuple[str, ...]
    addresses: tuple[IPNetwork, ...]
    ports: tuple[EntryPort, ...]
    resolution: Resolution
    external: bool = True
    endpoints: tuple[EntryEndpoint, ...] = ()
    selector: Mapping[str, str] | None = None
    subject_alt_names: tuple[str, ...] = ()
    export_to: tuple[str, ...] = ()
    allocated: Mapping[str, tuple[IPAddress, ...]] | None = None
    bound: str = ""


def read_workload_entry(root: Field) -> WorkloadEntry:
    """networking.istio.io WorkloadEntry. One whose condition `Healthy` is False serves nobody."""
    meta, spec, status = read_meta(root), root.sub("spec"), root.sub("status")
    if spec is None:
        root.fault("spec is missing")
        return WorkloadEntry(meta, EntryEndpoint("", None, {}, {}), meta.labels)
    endpoint = _endpoint(spec)
    healthy = not any(
        one.text("type") == "Healthy" and one.text("status") == "False"
        for one in (status.each("conditions") if status else ())
    )
    return WorkloadEntry(meta, endpoint, {**endpoint.labels, **meta.labels}, healthy)


def read_service_entry(root: Field) -> ServiceEntry:
    """networking.istio.io ServiceEntry."""
    meta, spec = read_meta(root), root.sub("spec")
    if spec is None:
        root.fault("spec is missing")
        return ServiceEntry(meta, (), (), (), Resolution.NONE)
    spec.only(_FIELDS)
    resolution = _resolution(spec)
    ports, endpoints = tuple(_ports(spec)), tuple(map(_endpoint, spec.each("endpoints")))
    found = ServiceEntry(
        meta,
        tuple(_hosts(spec, resolution)),
        tuple(_addresses(spec, resolution)),
        ports,
        resolution,
        read_choice(spec, "location", "MESH_EXTERNAL", "MESH_INTERNAL") != "MESH_INTERNAL",
        endpoints,
        _selector(spec),
        tuple(place.as_text() for place in spec.each("subjectAltNames")),
        tuple(place.as_text() for place in spec.each("exportTo")),
        _allocated(root),
        read_bound(root),
    )
    _check_endpoints(spec, found)
    return found


def _resolution(spec: Field) -> Resolution:
    text = read_choice(spec, "resolution", *Resolution)
    return Resolution(text) if text in list(Resolution) else Resolution.NONE


def _check_endpoints(spec: Field, found: ServiceEntry) -> None:
    """What istiod refuses of endpoints as a whole, and of each by how they are to be found."""
    places, resolution = spec.each("endpoints"), found.resolution
    names = {port.text("name") for port in spec.each("ports")}
    if places and found.selector is not None:
        spec.fault("endpoints and workloadSelector exclude each other")
    if places and resolution is Resolution.NONE:
        spec.fault("resolution NONE has no endpoints: calls go where the client wants; did you mean STATIC?")
    if resolution is Resolution.DNS_ROUND_ROBIN and len(places) > 1:
        spec.fault("resolution DNS_ROUND_ROBIN has at most one endpoint")
    for place, one in zip(places, found.endpoints, strict=True):
        if resolution is Resolution.STATIC and one.name:
            place.fault(f"resolution STATIC needs an IP address, {one.name!r} is none; did you mean DNS?")
        for name in one.ports:
            if name not in names:
                place.fault(f"port {name!r} is not among the ports of the ServiceEntry")


def _hosts(spec: Field, resolution: Resolution) -> Iterator[str]:
    places = spec.each("hosts")
    if not places:
        spec.fault("hosts are missing")
    implicit = resolution.by_name and not spec.each("endpoints") and spec.sub("workloadSelector") is None
    for place in places:
        host = place.as_text().lower()
        if host == "*" or len(host) > 253 or not _HOST.fullmatch(host):
            place.fault("not a host: a DNS name, or one that begins with '*.'")
        elif host.startswith("*.") and implicit and resolution is not Resolution.DYNAMIC_DNS:
            place.fault(
                f"resolution {resolution} without endpoints needs whole names: '*' cannot be resolved"
            )
        elif not host.startswith("*.") and resolution is Resolution.DYNAMIC_DNS:
            place.fault("resolution DYNAMIC_DNS is for hosts that begin with '*.'")
        else:
            yield host


def _addresses(spec: Field, resolution: Resolution) -> Iterator[IPNetwork]:
    for place in spec.each("addresses"):
        text = place.as_text()
        try:
            if "/" in text and ip_interface(text).network.network_address != ip_interface(text).ip:
                place.fault("not a CIDR: it has bits beyond its length")
            yield parse_block(text)
        except ValueError:
            place.fault("neither an address nor a CIDR")
        if "/" in text and resolution.by_name:
            place.fault("a CIDR stands with the resolutions NONE and STATIC only")


def _ports(spec: Field) -> Iterator[EntryPort]:
    """TCP ports, which are all but those of UDP."""
    numbers, names = set[int](), set[str]()
    for place in spec.each("ports"):
        place.only(["name", "number", "protocol", "targetPort"])
        number, target = place.sub("number"), place.sub("targetPort")
        name, protocol = place.text("name"), place.text("protocol").lower()
        if number is None:
            place.fault("number is missing")
            continue
        port = read_port(number)
        if not _PORT_NAME.fullmatch(name):
            place.fault("a port needs a name of letters, digits and '-'")
        if protocol and protocol not in _PROTOCOLS:
            place.fault(f"unknown protocol {place.text('protocol')!r}")
        if port in numbers:
            number.fault(f"port {port} stands here twice")
        if name in names:
            place.fault(f"the name {name!r} stands here twice")
        numbers.add(port)
        names.add(name)
        own = read_port(target) if target is not None and target.as_number() != 0 else 0
        if protocol != "udp":
            yield EntryPort(name, port, own or port, protocol)


def _selector(spec: Field) -> Mapping[str, str] | None:
    place = spec.sub("workloadSelector")
    if place is None:
        return None
    place.only(["labels"])
    return read_labels(place, "labels")


def _endpoint(place: Field) -> EntryEndpoint:
    place.only(_ENDPOINT_FIELDS)
    address, network = place.text("address"), place.text("network")
    if not address and not network:
        place.fault("address is missing")
    account, weight = place.text("serviceAccount"), place.sub("weight")
    if account and not _ACCOUNT.fullmatch(account):
        place.fault(f"not the name of a service account: {account!r}")
    share = weight.as_number() if weight is not None else 0
    if weight is not None and share is not None and not 0 <= share < 1 << 32:
        weight.fault("a weight is from 0 to 4294967295")
    region, _, rest = place.text("locality").partition("/")
    zone, _, subzone = rest.partition("/")
    return EntryEndpoint(
        address,
        _address(place, address),
        dict(_endpoint_ports(place)),
        read_labels(place, "labels"),
        network,
        Locality(region, zone, subzone),
        share or 0,
        account,
    )


def _address(place: Field, text: str) -> IPAddress | None:
    """The IP address; None for a name or socket, with a fault where it is neither."""
    if not text:
        return None
    try:
        return parse_ip(text)
    except PeerError:
        pass
    if text.startswith(_UNIX):
        if text[len(_UNIX) :][:1] not in ("/", "@") or text.endswith("/"):
            place.fault("the path of a unix socket is absolute, or begins with '@'")
        elif place.sub("ports") is not None:
            place.fault("a unix socket has no ports")
    elif len(text) > 253 or not _HOST.fullmatch(text.lower()) or text.startswith("*"):
        place.fault(f"neither an IP address nor a DNS name: {text[:80]!r}")
    return None


def _endpoint_ports(place: Field) -> Iterator[tuple[str, int]]:
    below = place.sub("ports")
    for name, port in below.pairs() if below else ():
        if not _PORT_NAME.fullmatch(name):
            port.fault("not the name of a port: letters, digits and '-'")
        yield name, read_port(port)


def _allocated(root: Field) -> Mapping[str, tuple[IPAddress, ...]] | None:
    """`status.addresses`, by host."""
    status = root.sub("status")
    found: dict[str, tuple[IPAddress, ...]] = {}
    for place in status.each("addresses") if status else ():
        host, value = place.text("host").lower(), place.sub("value")
        found[host] = (*found.get(host, ()), *(read_ip(value) if value is not None else ()))
    return found or None
