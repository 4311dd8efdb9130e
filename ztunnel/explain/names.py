"""Who calls whom, as an operator writes it: `shop/frontend`, `orders.shop:80`, `10.0.1.7:8080`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ztunnel.errors import PeerError
from ztunnel.model.address import Endpoint, IPAddress, parse_ip
from ztunnel.model.service import Service
from ztunnel.model.workload import Workload
from ztunnel.state.lookup import service_at
from ztunnel.state.world import World

_NAMED = 5
"""Names offered in an error; of more, how many there are."""

_PORT = re.compile(r"(.*):([0-9]{1,5})")
_BRACKETS = re.compile(r"\[(.*)\]")


class Unknown(Exception):
    """A name that is not in the world, or that means several things. The message offers what there is."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call to be explained. `source` is an address where no workload is known at it. `named` is the
    destination as it was written; `service` and `workload` say what stands at `destination`, if anything."""

    source: Workload | IPAddress
    destination: Endpoint
    named: str
    service: Service | None = None
    workload: Workload | None = None


def find_call(world: World, source: str, destination: str) -> Call:
    """The call that two texts mean.

    Args:
        world: what is known.
        source: a pod or what owns it (`namespace/name`, or `name` where there is one of it), or an address.
        destination: the same, or a service by `name.namespace`, host name or `namespace/name`, or an
            address; with `:port`, or without where there is only one.

    Raises:
        Unknown: one of them cannot be told.
    """
    caller = find_source(world, source)
    name, port = _cut(destination)
    ip = _address(name)
    if ip is not None:
        namespace = caller.namespace if isinstance(caller, Workload) else ""
        service, workload = service_at(world, Endpoint(ip, port), namespace), world.by_ip(ip)
    else:
        service, workload = _named(world, name, caller)
        ip = _ip_of(service, workload, caller)
    if not port:
        port = _only_port(name, service, workload)
    return Call(caller, Endpoint(ip, port), destination, service, None if service else workload)


def find_source(world: World, text: str) -> Workload | IPAddress:
    """Who calls; an address that is no workload's stays one. Raises Unknown."""
    ip = _address(text)
    if ip is not None:
        return world.by_ip(ip) or ip
    found = _workloads(world, text)
    if not found:
        raise Unknown(f"no pod {text!r}{_offer(_pod_names(world))}")
    return found[0]


def _cut(text: str) -> tuple[str, int]:
    """The name and the port, 0 for none; an IPv6 address with a port stands in brackets."""
    if text.count(":") > 1 and "]" not in text:
        return text, 0
    match = _PORT.fullmatch(text)
    if match is None:
        return text, 0
    port = int(match[2])
    if not 0 < port < 65536:
        raise Unknown(f"no port {port}: 1 to 65535")
    return match[1], port


def _address(text: str) -> IPAddress | None:
    inner = _BRACKETS.fullmatch(text)
    try:
        return parse_ip(inner[1] if inner else text)
    except PeerError:
        return None


def _named(world: World, name: str, source: Workload | IPAddress) -> tuple[Service | None, Workload | None]:
    services = _services(world, name, source)
    if services:
        return services[0], None
    pods = _workloads(world, name)
    if pods:
        return None, pods[0]
    known = sorted({f"{one.name}.{one.namespace}" for one in _all_services(world)})
    raise Unknown(f"no service and no pod {name!r}{_offer(known)}")


def _services(world: World, name: str, source: Workload | IPAddress) -> list[Service]:
    """As a pod's resolver would look: the full name, `name.namespace`, `name` in the caller's namespace."""
    exact = world.services_named(name.rstrip("."))
    if exact:
        return list(exact)
    namespace, _, short = name.rpartition("/")
    if not namespace:
        short, _, namespace = name.partition(".")
        namespace = namespace.removesuffix(".svc")
    if not namespace and isinstance(source, Workload):
        namespace = source.namespace
    found = [one for one in _all_services(world) if one.name == short]
    return [one for one in found if one.namespace == namespace] or ([] if namespace else found[:1])


def _workloads(world: World, name: str) -> list[Workload]:
    """Pods of that name or of a workload of that name, those in the mesh and healthy first.

    Raises:
        Unknown: they are in several namespaces.
    """
    namespace, _, short = name.rpartition("/")
    found = [
        one
        for one in world.workloads.values()
        if short in (one.name, one.workload_name) and namespace in ("", one.namespace)
    ]
    if len({one.namespace for one in found}) > 1:
        places = (f"{one.namespace}/{short}" for one in found)
        raise Unknown(f"{name!r} is in several namespaces{_offer(places)}")
    return sorted(found, key=lambda one: (one.name != short, not one.enrolled, not one.healthy, one.uid))


def _ip_of(service: Service | None, workload: Workload | None, source: Workload | IPAddress) -> IPAddress:
    """The address that a client would take: of the family of its own first address, if there is one."""
    which = service or workload
    assert which is not None
    addresses = which.addresses
    if not addresses:
        raise Unknown(f"{which.namespace}/{which.name} has no address: call one of its pods")
    own = source.addresses if isinstance(source, Workload) else (source,)
    version = own[0].version if own else 4
    return next((ip for ip in addresses if ip.version == version), addresses[0])


def _only_port(name: str, service: Service | None, workload: Workload | None) -> int:
    ports: set[int] = set()
    if service:
        ports = {each.service for each in service.ports}
    elif workload:
        ports = {port.target for served in workload.services.values() for port in served if port.target}
    if len(ports) == 1:
        return ports.pop()
    found = ", ".join(map(str, sorted(ports))) or "none is known"
    raise Unknown(f"which port of {name}? Write {name}:PORT (there are: {found})")


def _all_services(world: World) -> list[Service]:
    return [each.service for _, each in sorted(world.served.items()) if each.service]


def _pod_names(world: World) -> list[str]:
    return sorted(f"{one.namespace}/{one.name}" for one in world.workloads.values())


def _offer(names: Iterable[str]) -> str:
    found = sorted(set(names))
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f"; there are: {', '.join(found[:_NAMED])}{more}" if found else "; the world is empty"
