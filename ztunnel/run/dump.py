"""The configuration dump of the admin page, in the shape of ztunnel's, which `istioctl ztunnel-config` reads
(istioctl/pkg/writer/ztunnel/configdump/api.go)."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import islice
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from ztunnel import __version__
from ztunnel.config import Settings
from ztunnel.identity.chain import parse_certificates
from ztunnel.identity.renewal import Expiry
from ztunnel.model.identity import SpiffeId
from ztunnel.run.build import Node, Proxy
from ztunnel.run.compiled import compiled_modules
from ztunnel.state.dump import dump_world

_SHOWN_CONNECTIONS = 1000
"""Of one pod and direction; a dump is read by people."""


def dump_node(node: Node) -> dict[str, Any]:
    """That of a node whose pods our programs redirect."""
    others = [each.text for each in node.machine.hooks.neighbours] if node.machine.hooks else []
    return dump_proxy(node, node.pods.dump(), others)


def dump_proxy(
    node: Proxy, pods: Mapping[str, Mapping[str, object]], other_programs: Sequence[str]
) -> dict[str, Any]:
    """Plain JSON values; what is secret is left out. `pods` are shown by the uid of their workload."""
    certificates = [
        {
            "identity": str(each.identity),
            "state": _state(node, each),
            **_chains(node, each.identity),
        }
        for each in node.certificates.expiring()
    ]
    return {
        **_world(node),
        "manifests": node.knowledge.plane.dump(),
        "certificates": certificates,
        "workloadState": _states(node, pods),
        "otherPrograms": list(other_programs),
        "version": {"version": __version__, "pid": os.getpid(), "compiled": compiled_modules()},
        "config": dump_settings(node.settings),
    }


def _world(node: Proxy) -> dict[str, Any]:
    """The world; a workload in the scope of a policy that is faulty as it is written now says so."""
    shown = dump_world(node.hold.world)
    faults: dict[str, list[str]] = {}
    for one in node.knowledge.plane.dump().get("policyFaults", ()):
        for pod in one["pods"]:
            faults.setdefault(pod, []).append(one["policy"])
    for workload in shown["workloads"] if faults else ():
        if found := faults.get(f"{workload['namespace']}/{workload['name']}"):
            workload["policyFaults"] = found
    return shown


def _states(node: Proxy, pods: Mapping[str, Mapping[str, object]]) -> dict[str, Any]:
    """The pods that are enrolled here or ought to be, with who they are and what is open to and from them."""
    world, outbound = node.hold.world, _outbound(node)
    shown: dict[str, Any] = {}
    for uid, state in pods.items():
        workload = world.workload(uid)
        shown[uid] = dict(state)
        if workload is not None:
            shown[uid]["info"] = {
                "name": workload.name,
                "namespace": workload.namespace,
                "trustDomain": workload.trust_domain,
                "serviceAccount": workload.service_account,
            }
        shown[uid]["connections"] = {"inbound": _inbound(node, uid), "outbound": outbound.get(uid, [])}
    return shown


def _inbound(node: Proxy, uid: str) -> list[dict[str, str]]:
    """What is open into a pod, the first `_SHOWN_CONNECTIONS`. As with ztunnel a target that is an address is
    said once."""
    found = (each for each in node.live.of(uid) if each.workload_uid == uid)
    return [
        {
            "src": str(each.connection.source),
            "originalDst": "",
            "actualDst": str(each.connection.destination),
            "protocol": "HBONE" if each.connection.identity else "TCP",
        }
        for each in islice(found, _SHOWN_CONNECTIONS)
    ]


def _outbound(node: Proxy) -> dict[str, list[dict[str, str]]]:
    """What is open out of pods through this proxy, by uid; for each pod the first `_SHOWN_CONNECTIONS`."""
    found: dict[str, list[dict[str, str]]] = {}
    for call in node.outbound.calls:
        journey = call.journey
        if journey is None or journey.source_workload is None:
            continue
        shown = found.setdefault(journey.source_workload.uid, [])
        if len(shown) < _SHOWN_CONNECTIONS:
            shown.append(
                {
                    "src": str(call.peer),
                    "originalDst": str(journey.called or journey.destination),
                    "actualDst": str(journey.destination),
                    "protocol": "HBONE" if journey.hbone_address else "TCP",
                }
            )
    return found


def dump_settings(settings: Settings) -> dict[str, str]:
    """All settings that may be shown: a secret one is no part of their `repr` either."""
    return {field.name: str(getattr(settings, field.name)) for field in fields(settings) if field.repr}


def _state(node: Proxy, expiry: Expiry) -> str:
    """As ztunnel calls it (src/identity/manager.rs, CertState)."""
    if node.certificates.current(expiry.identity) is not None:
        return "Available"
    return f"Unavailable: {expiry.cause}" if expiry.cause else "Initializing"


def _chains(node: Proxy, identity: SpiffeId) -> dict[str, list[dict[str, str]]]:
    """The leaf with its intermediates, and the roots that it came with: what a change of roots is followed
    by."""
    held = node.certificates.current(identity)
    chain, roots = (held.chain_pem, held.roots_pem) if held is not None else ("", "")
    return {"certChain": _certificates(chain), "rootCerts": _certificates(roots)}


def _certificates(pem: str) -> list[dict[str, str]]:
    """The serial number in decimal, times by RFC 3339; PEM in base64 once more (ztunnel src/admin.rs)."""
    return [
        {
            "pem": b64encode(one.public_bytes(Encoding.PEM)).decode(),
            "serialNumber": str(one.serial_number),
            "validFrom": f"{one.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
            "expirationTime": f"{one.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
            "subject": one.subject.rfc4514_string(),
        }
        for one in (parse_certificates(pem) if pem else ())
    ]
