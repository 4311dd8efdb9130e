"""The configuration dump of the admin page, in the shape of ztunnel's, which `istioctl ztunnel-config` reads
(istioctl/pkg/writer/ztunnel/configdump/api.go)."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from itertools import islice
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from ztunnel import __version__
from ztunnel.config import Settings
from ztunnel.identity.chain import parse_certificates
from ztunnel.identity.renewal import Expiry
from ztunnel.identity.rotate import Certificate
from ztunnel.model.address import PeerAddress
from ztunnel.model.connection import Connection
from ztunnel.run.build import Node, Proxy
from ztunnel.run.compiled import compiled_modules
from ztunnel.state.dump import dump_world
from ztunnel.state.world import World
from ztunnel.telemetry.journey import Journey

_SHOWN_CONNECTIONS = 1000
"""Of one pod and direction; a dump is read by people."""


Compose = Callable[[], dict[str, Any]]
"""Makes plain JSON values of what was looked at. It may take its time, in any thread: seconds for 100,000
workloads."""


def dump_node(node: Node) -> Compose:
    """That of a node whose pods our programs redirect."""
    others = [each.text for each in node.machine.hooks.neighbours] if node.machine.hooks else []
    return dump_proxy(node, node.pods.dump(), others)


def dump_proxy(
    node: Proxy, pods: Mapping[str, Mapping[str, object]], other_programs: Sequence[str]
) -> Compose:
    """Looks at what changes, on the engine's thread, and leaves the rest to what it returns. What is secret
    is left out. `pods` are shown by the uid of their workload."""
    world, manifests = node.hold.world, node.knowledge.plane.dump()
    held = [(each, node.certificates.current(each.identity)) for each in node.certificates.expiring()]
    inbound = {uid: _inbound(node, uid) for uid in pods}
    outbound = _outbound(node)

    def compose() -> dict[str, Any]:
        return {
            **_world(world, manifests),
            "manifests": manifests,
            "certificates": [_certificate(*each) for each in held],
            "workloadState": _states(world, pods, inbound, outbound),
            "otherPrograms": list(other_programs),
            "version": {"version": __version__, "pid": os.getpid(), "compiled": compiled_modules()},
            "config": dump_settings(node.settings),
        }

    return compose


def _world(world: World, manifests: Mapping[str, Any]) -> dict[str, Any]:
    """The world; a workload in the scope of a policy that is faulty as it is written now says so."""
    shown = dump_world(world)
    faults: dict[str, list[str]] = {}
    for one in manifests.get("policyFaults", ()):
        for pod in one["pods"]:
            faults.setdefault(pod, []).append(one["policy"])
    for workload in shown["workloads"] if faults else ():
        if found := faults.get(f"{workload['namespace']}/{workload['name']}"):
            workload["policyFaults"] = found
    return shown


def _inbound(node: Proxy, uid: str) -> list[Connection]:
    """What is open into a pod, the first `_SHOWN_CONNECTIONS`."""
    found = (each.connection for each in node.live.of(uid) if each.workload_uid == uid)
    return list(islice(found, _SHOWN_CONNECTIONS))


def _outbound(node: Proxy) -> dict[str, list[tuple[PeerAddress, Journey]]]:
    """What is open out of pods through this proxy, by uid; for each pod the first `_SHOWN_CONNECTIONS`."""
    found: dict[str, list[tuple[PeerAddress, Journey]]] = {}
    for call in node.outbound.calls:
        journey = call.journey
        if journey is not None and journey.source_workload is not None:
            shown = found.setdefault(journey.source_workload.uid, [])
            if len(shown) < _SHOWN_CONNECTIONS:
                shown.append((call.peer, journey))
    return found


def _states(
    world: World,
    pods: Mapping[str, Mapping[str, object]],
    inbound: Mapping[str, Sequence[Connection]],
    outbound: Mapping[str, Sequence[tuple[PeerAddress, Journey]]],
) -> dict[str, Any]:
    """The pods that are enrolled here or ought to be, with who they are and what is open to and from them. As
    with ztunnel a target that is an address is said once."""
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
        shown[uid]["connections"] = {
            "inbound": [
                {
                    "src": str(each.source),
                    "originalDst": "",
                    "actualDst": str(each.destination),
                    "protocol": "HBONE" if each.identity else "TCP",
                }
                for each in inbound[uid]
            ],
            "outbound": [
                {
                    "src": str(peer),
                    "originalDst": str(journey.called or journey.destination),
                    "actualDst": str(journey.destination),
                    "protocol": "HBONE" if journey.hbone_address else "TCP",
                }
                for peer, journey in outbound.get(uid, ())
            ],
        }
    return shown


def dump_settings(settings: Settings) -> dict[str, str]:
    """All settings that may be shown: a secret one is no part of their `repr` either."""
    return {field.name: str(getattr(settings, field.name)) for field in fields(settings) if field.repr}


def _certificate(expiry: Expiry, held: Certificate | None) -> dict[str, Any]:
    """Its state as ztunnel calls it (src/identity/manager.rs, CertState); the leaf with its intermediates,
    and the roots that it came with: what a change of roots is followed by."""
    state = "Available" if held is not None else "Initializing"
    if held is None and expiry.cause:
        state = f"Unavailable: {expiry.cause}"
    return {
        "identity": str(expiry.identity),
        "state": state,
        "certChain": _certificates(held.chain_pem if held is not None else ""),
        "rootCerts": _certificates(held.roots_pem if held is not None else ""),
    }


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
