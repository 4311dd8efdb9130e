"""Calls from outside of the mesh: what stands at the address answers, whatever the caller is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ztunnel.authz.explanation import trace
from ztunnel.errors import ConnectionFailed
from ztunnel.explain.path import MOST_PATHS, Path, Way, path_to, why_allowed
from ztunnel.inbound.decision import judge_plain
from ztunnel.model.address import Endpoint, IPAddress
from ztunnel.model.connection import Connection
from ztunnel.model.service import Service
from ztunnel.model.workload import Workload
from ztunnel.state.balancer import Choice
from ztunnel.state.lookup import address_of, service_at, target_port
from ztunnel.state.world import World


def from_outside(world: World, source: Workload | IPAddress, called: Endpoint) -> tuple[list[Path], int]:
    """The ways, and how many more there are."""
    namespace = source.namespace if isinstance(source, Workload) else ""
    service = service_at(world, called, namespace)
    at_address = world.by_ip(called.ip)
    if service is None or at_address is not None:
        return [_plain(world, source, at_address, called)], 0
    choices = list(_endpoints(world, service, called))
    paths = [_plain(world, source, one.workload, one.endpoint) for one in choices[:MOST_PATHS]]
    if not paths:
        paths = [Path("", str(called), "", Way.NOWHERE, False, f"{service.key} has no healthy endpoint")]
    return paths, max(len(choices) - MOST_PATHS, 0)


def _endpoints(world: World, service: Service, called: Endpoint) -> Iterator[Choice]:
    """Those that kube-proxy would send a client to."""
    for workload in world.endpoints(service.key):
        ip = address_of(workload, called.ip, service.ip_families)
        port = target_port(service, workload, called.port)
        if workload.healthy and ip is not None and port:
            yield Choice(workload, Endpoint(ip, port))


def _plain(
    world: World, source: Workload | IPAddress, destination: Workload | None, target: Endpoint
) -> Path:
    if destination is None:
        reason = "neither end is in the mesh"
        return Path("", str(target), "", Way.PLAINTEXT, True, reason)
    if not destination.enrolled:
        return path_to(destination, target, Way.PLAINTEXT, "neither end is in the mesh")
    ip = _address(source, target)
    tried = trace(world, destination, Connection(Endpoint(ip, 0), target, None))
    try:
        by = judge_plain(world, destination, Endpoint(ip, 0), target).admitted.by
    except ConnectionFailed as error:
        return replace(path_to(destination, target, Way.PLAINTEXT, str(error), tried), allowed=False)
    return path_to(destination, target, Way.PLAINTEXT, why_allowed(by, tried), tried)


def _address(source: Workload | IPAddress, target: Endpoint) -> IPAddress:
    if not isinstance(source, Workload):
        return source
    own = source.addresses or (target.ip,)  # a pod that starts: no policy is about its address yet
    return next((ip for ip in own if ip.version == target.ip.version), own[0])
