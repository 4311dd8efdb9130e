"""Whether one incoming connection reaches the application, and on which address: over HBONE, or in plaintext.

Follows ztunnel's src/proxy/inbound.rs and inbound_passthrough.rs. Policy sees the certificate's identity, the
addresses and the port on which the application listens; never what the peer says in a header. Whatever the
peer asks for, the application's address is the one that the connection came in on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ztunnel.authz.verdict import Admitted, judge
from ztunnel.errors import NoDestination, PeerError
from ztunnel.model.address import Endpoint, parse_endpoint
from ztunnel.model.connection import Connection
from ztunnel.model.identity import SpiffeId
from ztunnel.model.service import Service
from ztunnel.model.workload import Workload
from ztunnel.state.lookup import ILLEGAL_PORTS, service_of, target_port
from ztunnel.state.world import World

_RECURSION: Final = "attempted recursive call to ourselves"
_BY_NAME: Final = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?):([0-9]{1,5})")
_NUMERIC: Final = re.compile(r"[0-9.]+")


@dataclass(frozen=True, slots=True)
class Arrival:
    """One CONNECT as it came in.

    Attributes:
        authority: `:authority`, untrusted.
        local: where its TLS connection ended: the pod's address, port 15008.
        peer: where that came from.
        identity: what the peer's certificate proved.
        service_hint: the hostname in the `forwarded` header, untrusted, "" for none; for telemetry only.
    """

    authority: str
    local: Endpoint
    peer: Endpoint
    identity: SpiffeId
    service_hint: str = ""


@dataclass(frozen=True, slots=True)
class InboundAdmitted:
    """Evidence that a connection may reach the application at `app`.

    Attributes:
        app: the pod's own address and the port that the application listens on.
        source: the workload at the peer's address, for telemetry; None if unknown, or if another identity was
            proved.
        service: the service that was called, for telemetry; always one that the pod serves.
        admitted: the verdict.
    """

    app: Endpoint
    source: Workload | None
    service: Service | None
    admitted: Admitted


def judge_tunnel(world: World, local: Workload, arrival: Arrival) -> InboundAdmitted:
    """Judge one CONNECT to the pod `local`.

    Raises:
        PeerError: 400 for an authority that cannot be read or is another pod's; 503 for a name or port that
            leads nowhere.
        Denied: refused by policy; the answer is 401.
    """
    app, service = _wanted(world, local, arrival)
    if app.port in ILLEGAL_PORTS:
        raise PeerError(_RECURSION, 503)
    admitted = judge(world, local, Connection(arrival.peer, app, arrival.identity))
    if service is None and arrival.service_hint:
        service = service_of(world, local, arrival.service_hint)
    return InboundAdmitted(app, _source(world, arrival.peer, arrival.identity), service, admitted)


def judge_plain(world: World, local: Workload, source: Endpoint, destination: Endpoint) -> InboundAdmitted:
    """Judge one connection that reached the pod `local` outside of any tunnel: its source proves nothing.

    Args:
        world: what is known.
        local: the pod.
        source: where it comes from.
        destination: the pod's address and port, as the source called them.

    Raises:
        NoDestination: it was for one of our own listeners.
        Denied: refused by policy.
    """
    if destination.port in ILLEGAL_PORTS:
        raise NoDestination(_RECURSION)
    admitted = judge(world, local, Connection(source, destination, None))
    return InboundAdmitted(destination, _source(world, source, None), None, admitted)


def _wanted(world: World, local: Workload, arrival: Arrival) -> tuple[Endpoint, Service | None]:
    """The application's address that an authority means, and its service where it was called by name."""
    named = _BY_NAME.fullmatch(arrival.authority)
    if named and not _NUMERIC.fullmatch(named[1]):
        return _by_name(world, local, arrival.local, (named[1].lower(), int(named[2])))
    try:
        wanted = parse_endpoint(arrival.authority)
    except PeerError as error:
        raise PeerError(f"invalid authority: {error}", 400) from error
    if wanted.ip != arrival.local.ip:
        raise PeerError(f"ip mismatch: {arrival.local.ip} != {wanted.ip}", 400)
    return wanted, None


def _by_name(
    world: World, local: Workload, at: Endpoint, wanted: tuple[str, int]
) -> tuple[Endpoint, Service]:
    hostname, port = wanted
    if not 0 < port < 65536:
        raise PeerError(f"invalid authority: no port {port}", 400)
    service = service_of(world, local, hostname)
    if service is None:
        raise PeerError(f"no service {hostname} is served by {local.namespace}/{local.name}", 503)
    target = target_port(service, local, port)
    if not target:
        raise PeerError(f"{local.namespace}/{local.name} does not serve port {port} of {hostname}", 503)
    return Endpoint(at.ip, target), service


def _source(world: World, peer: Endpoint, identity: SpiffeId | None) -> Workload | None:
    found = world.by_ip(peer.ip)
    if found and identity and found.identity != identity:
        return None
    return found
