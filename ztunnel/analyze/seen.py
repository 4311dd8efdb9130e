"""Policies that judge who calls, at pods behind a waypoint: what they see there is the waypoint.

Istio's policies with a selector, and those of a namespace, act at the destination. Once a service stands
behind a waypoint, that is who calls its pods (istio/istio#43476, #44458)."""

from __future__ import annotations

from collections.abc import Iterator

from ztunnel.analyze.finding import SEES_WAYPOINT, Finding
from ztunnel.analyze.mesh import Mesh
from ztunnel.authz.rule import matches
from ztunnel.authz.verdict import is_peer_authentication
from ztunnel.control.source.inventory import of_kind
from ztunnel.control.waypoints.use_waypoint import USE
from ztunnel.control.waypoints.waypoint import GATEWAY_NAME
from ztunnel.model.address import Endpoint
from ztunnel.model.connection import Connection
from ztunnel.model.identity import SpiffeId
from ztunnel.model.policy import Action, Match, MatchKind, Policy, StringMatch
from ztunnel.model.service import Service, ServiceName
from ztunnel.model.workload import Workload
from ztunnel.state import kube
from ztunnel.state.world import World

_USE_NAMESPACE = f"{USE}-namespace"


def seen_findings(mesh: Mesh) -> Iterator[Finding]:
    """One for each policy and waypoint."""
    written = {(one.namespace, one.name): one for one in mesh.written if one.kind == "AuthorizationPolicy"}
    told = set()
    for service, gateway in _behind(mesh):
        seen = waypoint_account(mesh.world, gateway, mesh.settings.trust_domain)
        for endpoint in mesh.world.endpoints(service.key):
            for policy in mesh.world.policies_for(endpoint).received:
                one = written.get((policy.namespace, policy.name))
                if one is None or (policy.key, gateway) in told or not _judges_callers(policy, seen):
                    continue
                told.add((policy.key, gateway))
                message = _message(policy, service, endpoint, seen)
                yield Finding(SEES_WAYPOINT.code, SEES_WAYPOINT.level, str(one), message, one.file, one.line)


def _behind(mesh: Mesh) -> Iterator[tuple[Service, tuple[str, str]]]:
    """The services that name a waypoint, or whose namespace does, with the Gateway that it is."""
    objects = mesh.inventory.objects.values()
    spaces = {one.meta.name: one.meta.labels for one in of_kind(objects, kube.Namespace)}
    for one in of_kind(objects, kube.Service):
        namespace, labels = one.meta.namespace, one.meta.labels
        if USE not in labels:
            labels = spaces.get(namespace, {})
        name = labels.get(USE, "none")
        if GATEWAY_NAME in one.meta.labels or one.meta.name == name:
            continue  # a waypoint itself
        found = mesh.world.service(
            ServiceName(namespace, f"{one.meta.name}.{namespace}.svc.{mesh.settings.cluster_domain}")
        )
        if name != "none" and found is not None:
            yield found, (labels.get(_USE_NAMESPACE, namespace), name)


def waypoint_account(world: World, gateway: tuple[str, str], trust_domain: str) -> SpiffeId:
    """Who the waypoint is: what its pods run as, and where there are none yet, an account of its name, as
    control planes make it."""
    namespace, name = gateway
    for one in world.workloads.values():
        called = (each.hostname.partition(".")[0] for each in one.services)
        if one.native_tunnel and one.namespace == namespace and name in called:
            return one.identity
    return SpiffeId(trust_domain, namespace, name)


def _judges_callers(policy: Policy, seen: SpiffeId) -> bool:
    """Whether it says anything about who calls, other than that it is the waypoint."""
    if policy.dry_run or is_peer_authentication(policy.name):
        return False
    own = Match(principals=(StringMatch(MatchKind.EXACT, seen.principal),))
    sources = [
        match
        for rule in policy.rules
        for clause in rule
        for match in clause
        if match.principals or match.not_principals or match.namespaces or match.not_namespaces
        or match.service_accounts or match.not_service_accounts or match.source_ips or match.not_source_ips
    ]  # fmt: skip
    return bool(sources) and any(match != own for match in sources)


def _message(policy: Policy, service: Service, endpoint: Workload, seen: SpiffeId) -> str:
    ports = endpoint.services.get(service.key, ())
    target = next((port.target for port in ports if port.target), 0)
    ip = endpoint.addresses[0] if endpoint.addresses else None
    hit = ip is not None and matches(policy, Connection(Endpoint(ip, 0), Endpoint(ip, target), seen))
    effect = {
        (Action.ALLOW, True): "it lets through whoever calls through the waypoint",
        (Action.ALLOW, False): "it lets nothing through that comes from the waypoint",
        (Action.DENY, True): "it refuses all that comes from the waypoint",
        (Action.DENY, False): "it refuses nobody who calls through the waypoint",
    }[policy.action, hit]
    return (
        f"it judges who calls, and pods of Service {service.namespace}/{service.name} are called by its "
        f"waypoint, {seen.principal}: {effect}. What it says of callers belongs into a policy with targetRefs"
    )
