"""NetworkPolicies that let an application's port in, or out, but not the port of the mesh's tunnels.

Between nodes a call arrives on port 15008, whatever port it is for, so a policy that names ports has to name
that one as well (Istio's documentation, "Ambient and Kubernetes NetworkPolicy"). Policies of one pod add up:
what one of them admits is admitted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ztunnel.analyze.finding import NETWORK_POLICY, Finding
from ztunnel.analyze.mesh import Mesh, Written
from ztunnel.analyze.policies import found, named
from ztunnel.control.source.inventory import of_kind
from ztunnel.state import kube
from ztunnel.state.lookup import HBONE_PORT

_GROUP = "networking.k8s.io"
_DIRECTIONS = {"Ingress": "ingress", "Egress": "egress"}


def network_policy_findings(mesh: Mesh) -> Iterator[Finding]:
    """For each policy that admits some port to pods of the mesh, and by no policy of theirs 15008."""
    enrolled = {(one.namespace, one.name) for one in mesh.world.workloads.values() if one.enrolled}
    pods = [
        pod
        for pod in of_kind(mesh.inventory.objects.values(), kube.Pod)
        if (pod.meta.namespace, pod.meta.name) in enrolled
    ]
    policies = list(mesh.of(_GROUP, "NetworkPolicy"))
    for direction in _DIRECTIONS:
        shut: dict[Written, list[str]] = {}
        for pod in pods:
            selecting = [one for one in policies if _selects(one, pod) and direction in _types(one)]
            if selecting and not any(_admits(one, direction) for one in selecting):
                for one in selecting:
                    if _names_ports(one, direction):
                        shut.setdefault(one, []).append(f"{pod.meta.namespace}/{pod.meta.name}")
        for one, names in shut.items():
            way = "to" if direction == "Ingress" else "from"
            message = (
                f"it names ports {way} pods of the mesh and not TCP {HBONE_PORT}, by which the mesh's own "
                f"traffic goes: calls between nodes time out ({named(names)}); add that port"
            )
            yield found(NETWORK_POLICY, one, message)


def _selects(policy: Written, pod: kube.Pod) -> bool:
    """An empty selector selects all; `matchExpressions` count as well."""
    if policy.namespace != pod.meta.namespace:
        return False
    labels = pod.meta.labels
    wanted = policy.labels("spec.podSelector.matchLabels")
    return wanted.items() <= labels.items() and all(
        _meets(one, labels) for one in policy.entries("spec.podSelector.matchExpressions")
    )


def _meets(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, operator = str(expression.get("key", "")), expression.get("operator")
    values = expression.get("values")
    given = [str(each) for each in values] if isinstance(values, list) else []
    if operator == "In":
        return labels.get(key) in given
    if operator == "NotIn":
        return labels.get(key) not in given
    if operator == "Exists":
        return key in labels
    return operator == "DoesNotExist" and key not in labels


def _types(policy: Written) -> set[str]:
    """As the API has it by default: Ingress always, Egress where there are rules of it."""
    given = policy.get("spec.policyTypes")
    if isinstance(given, list):
        return {str(each) for each in given}
    return {"Ingress", "Egress"} if policy.get("spec.egress") else {"Ingress"}


def _rules(policy: Written, direction: str) -> list[Mapping[str, Any]]:
    return policy.entries(f"spec.{_DIRECTIONS[direction]}")


def _ports(rule: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    ports = rule.get("ports")
    return [each for each in ports if isinstance(each, Mapping)] if isinstance(ports, list) else []


def _names_ports(policy: Written, direction: str) -> bool:
    return any(_is_tcp(_ports(rule)) for rule in _rules(policy, direction))


def _is_tcp(ports: Iterable[Mapping[str, Any]]) -> bool:
    return any(each.get("protocol", "TCP") == "TCP" for each in ports)


def _admits(policy: Written, direction: str) -> bool:
    """Whether some rule lets the tunnels' port through: it names no ports, or that one."""
    return any(not _ports(rule) or any(map(_covers, _ports(rule))) for rule in _rules(policy, direction))


def _covers(port: Mapping[str, Any]) -> bool:
    if port.get("protocol", "TCP") != "TCP":
        return False
    first, last = port.get("port"), port.get("endPort")
    if first is None:
        return True
    if not isinstance(first, int):
        return False
    return first <= HBONE_PORT <= (last if isinstance(last, int) else first)
