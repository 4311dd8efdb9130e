"""Who would be cut off if a namespace required mutual TLS: by what was seen, and by what is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from ztunnel.analyze.checks import Check, State
from ztunnel.authz.direct import connection_between, requires_tls
from ztunnel.model.address import Endpoint
from ztunnel.state.world import World

_OPENED: Final = "istio_tcp_connections_opened"
_UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True, order=True)
class Plain:
    """Connections without mutual TLS that somebody made to a workload. `source` and `destination` are
    `namespace/name` of workloads, `source` is `unknown` for who is not in the world."""

    destination: str
    source: str
    connections: int


def seen(metrics: Iterable[str], namespace: str) -> list[Plain]:
    """Who has called pods of a namespace without proving an identity, by the metrics of node proxies since
    they started. Pods of one node, whose identity the kernel proves, are not cut off: they will use TLS.

    Args:
        metrics: the text of each node proxy's /metrics.

    Raises:
        ValueError: one of them is no text of metrics.
    """
    found: dict[tuple[str, str], int] = {}
    for text in metrics:
        for family in text_string_to_metric_families(text):
            for sample in family.samples if family.name == _OPENED else ():
                labels = sample.labels
                if (
                    labels.get("reporter") == "destination"
                    and labels.get("destination_workload_namespace") == namespace
                    and labels.get("source_principal", _UNKNOWN) == _UNKNOWN
                ):
                    key = _name(labels, "destination"), _name(labels, "source")
                    found[key] = found.get(key, 0) + int(sample.value)
    return sorted(Plain(*key, count) for key, count in found.items() if count)


def strict_checks(world: World, plain: Iterable[Plain], namespace: str) -> list[Check]:
    """What stands in the way of mutual TLS only in a namespace: callers that would be cut off (failures), its
    pods that are not in the mesh (warnings); and which of its pods have it by now."""
    checks = [
        Check(
            "callers without an identity",
            one.source,
            State.FAIL,
            f"{one.connections} connections to {one.destination} since its node proxy started",
            "bring it into the mesh, or leave the port it calls PERMISSIVE (portLevelMtls)",
        )
        for one in plain
    ]
    if not checks:
        checks.append(Check("callers without an identity", "none", State.OK, "nobody was seen"))
    inside = [one for one in world.workloads.values() if one.namespace == namespace and one.enrolled]
    fix = "istio.io/dataplane-mode=ambient on the namespace or the pod"
    bare = [Check("its pods", name, State.WARN, "not in the mesh", fix) for name in outside(world, namespace)]
    strict = strict_already(world, namespace)
    found = f"{len(inside)} pods, {len(strict)} of them STRICT already"
    return [*checks, *bare, Check("its pods", "in the mesh", State.OK if inside else State.WARN, found)]


def outside(world: World, namespace: str) -> list[str]:
    """Workloads of the namespace that STRICT would not protect, because they are not in the mesh."""
    return sorted(
        f"{one.namespace}/{one.name}"
        for one in world.workloads.values()
        if one.namespace == namespace and not one.enrolled and not one.host_network
    )


def strict_already(world: World, namespace: str) -> list[str]:
    """Workloads of the namespace that require mutual TLS on all their ports by now, as far as a port of no
    service tells."""
    found = []
    for one in world.workloads.values():
        if one.namespace == namespace and one.enrolled and one.addresses:
            target = Endpoint(one.addresses[0], 1)
            if requires_tls(world, one, connection_between(one, target)):
                found.append(f"{one.namespace}/{one.name}")
    return sorted(found)


def _name(labels: dict[str, str], end: str) -> str:
    name = labels.get(f"{end}_workload", _UNKNOWN)
    if name in ("", _UNKNOWN):
        return _UNKNOWN
    return f"{labels.get(f'{end}_workload_namespace', _UNKNOWN)}/{name}"
