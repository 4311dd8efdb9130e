"""The world as plain JSON values, in the shape of ztunnel's config dump (src/admin.rs, src/state.rs) as
istioctl reads it (istioctl/pkg/writer/ztunnel/configdump/api.go)."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from enum import Enum
from typing import Any

from ztunnel.model.address import IPAddress
from ztunnel.model.credential import Credential
from ztunnel.model.http_policy import HttpMatch, HttpPolicy, TextKind, TextMatch, Value
from ztunnel.model.jwt import JwtPolicy
from ztunnel.model.policy import Match, MatchKind, Policy, ServiceAccountMatch, StringMatch
from ztunnel.model.provider import ExtensionProvider
from ztunnel.model.route import Routes
from ztunnel.model.service import IpFamilies, LoadBalancing, Service, Waypoint
from ztunnel.model.service_traffic import ServiceTraffic
from ztunnel.model.workload import Workload
from ztunnel.state.world import World

_FAMILIES = {IpFamilies.IPV4_ONLY: "IPv4", IpFamilies.IPV6_ONLY: "IPv6", IpFamilies.DUAL: "Dual"}


def dump_world(world: World) -> dict[str, Any]:
    """`workloads`, `services` and `policies`, each sorted by its key."""
    return {
        "workloads": [_workload(world.workloads[uid]) for uid in sorted(world.workloads)],
        "services": [
            _service(served.service, served.endpoints, world.network)
            for _, served in sorted(world.served.items())
            if served.service is not None
        ],
        "policies": [_policy(world.policies[key]) for key in sorted(world.policies)],
    }


def dump_http(world: World) -> dict[str, Any]:
    """What only waypoints have: `httpPolicies`, `jwtPolicies`, `rateLimits`; of services `routes`,
    `trafficPolicies`, `credentials` without what is secret; of the mesh config `providers`, `meshDefaults`;
    `telemetries`."""
    return {
        "httpPolicies": [_http_policy(world.http_policies[key]) for key in sorted(world.http_policies)],
        "jwtPolicies": [_jwt_policy(world.jwt_policies[key]) for key in sorted(world.jwt_policies)],
        "rateLimits": [_said(_plain(asdict(world.rate_limits[key]))) for key in sorted(world.rate_limits)],
        "routes": [_routes(world.routes[key]) for key in sorted(world.routes)],
        "trafficPolicies": [_traffic(world.traffic[key]) for key in sorted(world.traffic)],
        "credentials": [_credential(world.credentials[key]) for key in sorted(world.credentials)],
        "providers": [_provider(world.providers[key]) for key in sorted(world.providers)],
        "meshDefaults": [_said(_plain(asdict(world.defaults[key]))) for key in sorted(world.defaults)],
        "telemetries": [_said(_plain(asdict(world.telemetries[key]))) for key in sorted(world.telemetries)],
    }


def _routes(routes: Routes) -> dict[str, Any]:
    """Its rules in their order, each with the object that it comes from."""
    rules = [{**_said(_plain(asdict(rule))), "source": str(rule.source)} for rule in routes.rules]
    return {"service": routes.key, "rules": rules}


def _plain(value: Any) -> Any:
    """As JSON has it; lists stay tuples, and sets are in order."""
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_plain(one) for one in value)
    if isinstance(value, frozenset):
        return tuple(sorted(_plain(one) for one in value))
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _traffic(traffic: ServiceTraffic) -> dict[str, Any]:
    return {"service": traffic.key, "clients": [_said(asdict(one)) for one in traffic.clients]}


def _credential(credential: Credential) -> dict[str, Any]:
    """What there is of it, and nothing of that but for what everybody may know."""
    kept = replace(credential, private_key="<redacted>" if credential.private_key else "")
    said: dict[str, Any] = _said(asdict(kept))
    return said


def _provider(provider: ExtensionProvider) -> dict[str, Any]:
    kind, what = type(provider.what).__name__, _said(_plain(asdict(provider.what)))
    return {"name": provider.name, "kind": kind[0].lower() + kind[1:], **what}


def _said(value: Any) -> Any:
    """Without what is not said."""
    if isinstance(value, dict):
        return {_camel(name): _said(one) for name, one in value.items() if one not in (None, "", ())}
    return [_said(one) for one in value] if isinstance(value, tuple) else value


def _jwt_policy(policy: JwtPolicy) -> dict[str, Any]:
    """Of keys, which there are."""
    return {
        "name": policy.name,
        "namespace": policy.namespace,
        "rules": [{**asdict(rule), "keys": _key_ids(rule.keys)} for rule in policy.rules],
    }


def _key_ids(keys: str) -> list[str]:
    try:
        return [f"{one.get('kty')} {one.get('kid', '')}" for one in json.loads(keys)["keys"]]
    except (AttributeError, KeyError, TypeError, ValueError):
        return []


def _http_policy(policy: HttpPolicy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "namespace": policy.namespace,
        "action": policy.action.name.capitalize(),
        "dryRun": policy.dry_run,
        **({"provider": policy.provider} if policy.provider else {}),
        "rules": [[[_http_match(match) for match in clause] for clause in rule] for rule in policy.rules],
    }


def _http_match(match: HttpMatch) -> dict[str, Any]:
    """By attribute, as AuthorizationPolicy writes it, what it is compared with."""
    shown: dict[str, Any] = {}
    for term in match:
        name = term.attribute.value + "".join(f"[{each}]" for each in term.argument)
        values = {"values": term.values, "notValues": term.not_values}
        shown[name] = {key: [_http_value(one) for one in found] for key, found in values.items() if found}
    return shown


def _http_value(value: Value) -> Any:
    if isinstance(value, TextMatch):
        return {value.kind.value.capitalize(): {} if value.kind is TextKind.PRESENCE else value.text}
    return value if isinstance(value, int) else str(value)


def _workload(workload: Workload) -> dict[str, Any]:
    return {
        "uid": workload.uid,
        "name": workload.name,
        "namespace": workload.namespace,
        "workloadIps": [str(ip) for ip in workload.addresses],
        **_waypoint(workload.waypoint, workload.network),
        "protocol": workload.protocol.name if workload.protocol.value else "TCP",
        "trustDomain": workload.trust_domain,
        "serviceAccount": workload.service_account,
        "node": workload.node,
        "hostname": workload.hostname,
        "canonicalName": workload.canonical_name,
        "canonicalRevision": workload.canonical_revision,
        "workloadName": workload.workload_name,
        "workloadType": workload.kind.value,
        "clusterId": workload.cluster,
        "network": workload.network,
        "locality": {key: value for key, value in asdict(workload.locality).items() if value},
        "sameNode": workload.same_node.value,
        "forwards": workload.forwards,
        "nativeTunnel": workload.native_tunnel,
        "capacity": workload.capacity,
        "status": "Healthy" if workload.healthy else "Draining" if workload.draining else "Unhealthy",
        "authorizationPolicies": list(workload.authorization_policies),
        "services": [str(name) for name in sorted(workload.services)],
    }


def _service(service: Service, endpoints: tuple[Workload, ...], network: str) -> dict[str, Any]:
    return {
        "name": service.name,
        "namespace": service.namespace,
        "hostname": service.hostname,
        "vips": [_at(ip, network) for ip in service.addresses],
        "ports": {str(port.service): port.target for port in service.ports},
        **_balancer(service),
        **_waypoint(service.waypoint, network),
        "endpoints": {each.uid: _endpoint(each, service) for each in endpoints},
        "subjectAltNames": list(service.subject_alt_names),
        "ipFamilies": _FAMILIES.get(service.ip_families),
        "canonical": service.canonical,
    }


def _endpoint(workload: Workload, service: Service) -> dict[str, Any]:
    return {
        "workloadUid": workload.uid,
        "service": str(service.key),
        "port": {str(port.service): port.target for port in workload.services[service.key]},
        "status": "Healthy" if workload.healthy else "Draining" if workload.draining else "Unhealthy",
    }


def _balancer(service: Service) -> dict[str, Any]:
    if service.load_balancing is LoadBalancing.STANDARD and not service.include_unhealthy:
        return {}
    shown = {
        "mode": service.load_balancing.name.capitalize(),
        "routingPreferences": [scope.name.capitalize() for scope in service.routing_preference],
        "healthPolicy": "AllowAll" if service.include_unhealthy else "OnlyHealthy",
    }
    return {"loadBalancer": shown}


def _waypoint(waypoint: Waypoint | None, network: str) -> dict[str, Any]:
    if waypoint is None:
        return {}
    where = str(waypoint.service) if waypoint.service else ""
    if waypoint.address is not None:
        where = _at(waypoint.address, network)
    return {"waypoint": {"destination": where, "hboneMtlsPort": waypoint.hbone_port}}


def _at(ip: IPAddress, network: str) -> str:
    """As ztunnel writes the address of a network."""
    return f"{network}/{ip}"


def _policy(policy: Policy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "namespace": policy.namespace,
        "scope": policy.scope.name.title().replace("_", ""),
        "action": policy.action.name.capitalize(),
        "dryRun": policy.dry_run,
        "rules": [[[_match(match) for match in clause] for clause in rule] for rule in policy.rules],
    }


def _match(match: Match) -> dict[str, Any]:
    """The fields that a match has; the others are left out."""
    named = {name: getattr(match, name) for name in Match.__dataclass_fields__}
    return {_camel(name): [_value(value) for value in values] for name, values in named.items() if values}


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def _value(value: object) -> Any:
    if isinstance(value, StringMatch):
        return {value.kind.value.capitalize(): {} if value.kind is MatchKind.PRESENCE else value.text}
    if isinstance(value, ServiceAccountMatch):
        return {"namespace": value.namespace, "serviceAccount": value.service_account}
    return value if isinstance(value, int) else str(value)
