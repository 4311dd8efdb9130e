"""The world as plain JSON values, in the shape of ztunnel's config dump (src/admin.rs, src/state.rs)."""

from __future__ import annotations

from typing import Any

from ztunnel.model.policy import Match, Policy
from ztunnel.model.service import Service
from ztunnel.model.workload import Workload
from ztunnel.state.world import World


def dump_world(world: World) -> dict[str, Any]:
    """`workloads`, `services` and `policies`, each sorted by its key."""
    return {
        "workloads": [_workload(world.workloads[uid]) for uid in sorted(world.workloads)],
        "services": [
            _service(served.service, served.endpoints)
            for _, served in sorted(world.served.items())
            if served.service is not None
        ],
        "policies": [_policy(world.policies[key]) for key in sorted(world.policies)],
    }


def _workload(workload: Workload) -> dict[str, Any]:
    return {
        "uid": workload.uid,
        "name": workload.name,
        "namespace": workload.namespace,
        "workloadIps": [str(ip) for ip in workload.addresses],
        "protocol": workload.protocol.name,
        "trustDomain": workload.trust_domain,
        "serviceAccount": workload.service_account,
        "node": workload.node,
        "canonicalName": workload.canonical_name,
        "canonicalRevision": workload.canonical_revision,
        "workloadName": workload.workload_name,
        "workloadType": workload.kind.value,
        "clusterId": workload.cluster,
        "network": workload.network,
        "sameNode": workload.same_node.value,
        "forwards": workload.forwards,
        "status": "Healthy" if workload.healthy else "Draining" if workload.draining else "Unhealthy",
        "authorizationPolicies": list(workload.authorization_policies),
        "services": [str(name) for name in sorted(workload.services)],
    }


def _service(service: Service, endpoints: tuple[Workload, ...]) -> dict[str, Any]:
    return {
        "name": service.name,
        "namespace": service.namespace,
        "hostname": service.hostname,
        "vips": [str(ip) for ip in service.addresses],
        "ports": {str(port.service): port.target for port in service.ports},
        "loadBalancer": service.load_balancing.name,
        "endpoints": [endpoint.uid for endpoint in endpoints],
    }


def _policy(policy: Policy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "namespace": policy.namespace,
        "scope": policy.scope.name,
        "action": policy.action.name,
        "dryRun": policy.dry_run,
        "rules": [[[_match(match) for match in clause] for clause in rule] for rule in policy.rules],
    }


def _match(match: Match) -> dict[str, Any]:
    """The fields that a match has; the others are left out."""
    named = {name: getattr(match, name) for name in Match.__dataclass_fields__}
    return {name: [_text(value) for value in values] for name, values in named.items() if values}


def _text(value: object) -> str:
    kind = getattr(value, "kind", None)
    return f"{kind.value}:{value.text}" if kind is not None else str(value)  # type: ignore[attr-defined]
