"""The configuration dump of the admin page, in the shape of ztunnel's."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ztunnel import __version__
from ztunnel.config import Settings
from ztunnel.identity.renewal import Expiry
from ztunnel.model.identity import SpiffeId
from ztunnel.run.build import Node
from ztunnel.run.compiled import compiled_modules
from ztunnel.state.dump import dump_world


def dump_node(node: Node) -> dict[str, Any]:
    """Plain JSON values; what is secret is left out."""
    certificates = [
        {
            "identity": str(each.identity),
            "state": _state(node, each),
            "certChain": _chain(node, each.identity),
        }
        for each in node.certificates.expiring()
    ]
    return {
        **_world(node),
        "manifests": node.plane.dump(),
        "certificates": certificates,
        "workloadState": node.pods.dump(),
        "otherPrograms": [each.text for each in node.machine.hooks.neighbours] if node.machine.hooks else [],
        "version": {"version": __version__, "compiled": compiled_modules()},
        "config": dump_settings(node.settings),
    }


def _world(node: Node) -> dict[str, Any]:
    """The world; a workload in the scope of a policy that is faulty as it is written now says so."""
    shown = dump_world(node.hold.world)
    faults: dict[str, list[str]] = {}
    for one in node.plane.dump().get("policyFaults", ()):
        for pod in one["pods"]:
            faults.setdefault(pod, []).append(one["policy"])
    for workload in shown["workloads"] if faults else ():
        if found := faults.get(f"{workload['namespace']}/{workload['name']}"):
            workload["policyFaults"] = found
    return shown


def dump_settings(settings: Settings) -> dict[str, str]:
    """All settings that may be shown: a secret one is no part of their `repr` either."""
    return {field.name: str(getattr(settings, field.name)) for field in fields(settings) if field.repr}


def _state(node: Node, expiry: Expiry) -> str:
    """As ztunnel calls it (src/identity/manager.rs, CertState)."""
    if node.certificates.current(expiry.identity) is not None:
        return "Available"
    return f"Unavailable: {expiry.cause}" if expiry.cause else "Initializing"


def _chain(node: Node, identity: SpiffeId) -> list[dict[str, str]]:
    held = node.certificates.current(identity)
    if held is None:
        return []
    return [
        {
            "serialNumber": str(held.serial),
            "validFrom": held.not_before.isoformat(),
            "expirationTime": held.not_after.isoformat(),
        }
    ]
