"""Who calls and who is called, in words."""

from __future__ import annotations

from typing import Final

from ztunnel.explain.names import Call
from ztunnel.model.address import IPAddress
from ztunnel.model.workload import LeftTo, Workload
from ztunnel.state.world import World

_LEFT: Final = {LeftTo.SIDECAR: " (its sidecar serves it)", LeftTo.ISTIO: " (Istio's ztunnel serves it)"}


def describe_source(source: Workload | IPAddress) -> str:
    """Who calls, and as whom."""
    if not isinstance(source, Workload):
        return f"{source}, nobody that is known: without an identity"
    place = f"{source.namespace}/{source.name} on {source.node or 'no node'}"
    if source.enrolled:
        return f"{place}, in the mesh as {source.identity.principal}"
    return f"{place}, not in the mesh{_left_to(source)}: without an identity"


def _left_to(workload: Workload) -> str:
    """Why it is not in the mesh, where that is not its label."""
    return " (the host's network)" if workload.host_network else _LEFT.get(workload.left_to, "")


def describe_called(world: World, call: Call) -> str:
    """What is called, and what stands there."""
    at = f"at {call.destination}"
    if call.service is not None:
        ready = [one for one in world.endpoints(call.service.key) if one.healthy]
        ports = len(world.endpoints(call.service.key))
        return f"service {call.service.key} {at}, {len(ready)} of {ports} endpoints ready"
    if call.workload is not None:
        one = call.workload
        state = "in the mesh" if one.enrolled else f"not in the mesh{_left_to(one)}"
        return f"{one.namespace}/{one.name} {at} on {one.node or 'no node'}, {state}"
    return f"{call.destination}, nobody that is known"
