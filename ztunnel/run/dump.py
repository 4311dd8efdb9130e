"""The configuration dump of the admin page, in the shape of ztunnel's."""

from __future__ import annotations

from typing import Any

from ztunnel import __version__
from ztunnel.model.identity import SpiffeId
from ztunnel.run.build import Node
from ztunnel.state.dump import dump_world


def dump_node(node: Node) -> dict[str, Any]:
    """Plain JSON values; what is secret is left out."""
    certificates = [
        {
            "identity": str(each.identity),
            "state": "Available" if node.certificates.current(each.identity) else "Unavailable",
            "certChain": _chain(node, each.identity),
        }
        for each in node.certificates.expiring()
    ]
    return {
        **dump_world(node.hold.world),
        "certificates": certificates,
        "workloadState": node.pods.dump(),
        "version": {"version": __version__},
        "config": {
            name: str(getattr(node.settings, name))
            for name in node.settings.__dataclass_fields__
            if name != "auth_token"
        },
    }


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
