"""What the laboratory and the Envoys are told: the texts beside this module, filled in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template

from bench.contestants import MESHED, PLAIN, PROXIED
from ztunnel.model.identity import SpiffeId

HERE = Path(__file__).parent
MODES = {MESHED: "ambient", PLAIN: "none", PROXIED: "none"}
CLIENT_IDENTITY = SpiffeId("cluster.local", PROXIED, "client")
SERVER_IDENTITY = SpiffeId("cluster.local", PROXIED, "server")


def manifests(directory: Path) -> str:
    """Pods and policy of all contestants; the servers write below `directory`."""
    text = Template((HERE / "manifests.yaml").read_text())
    return "---\n".join(
        text.substitute(directory=directory, bench=HERE, namespace=namespace, mode=mode)
        for namespace, mode in MODES.items()
    )


def envoys(directory: Path, server: str, port: int) -> Mapping[str, str]:
    """The configuration of the Envoy beside the client and of that beside a server, as `client` and `server`.

    Args:
        directory: holds ca.pem and both ends' client.pem, client.key, server.pem and server.key.
        server: the address of its pod.
        port: on loopback, for the client.
    """
    known = {
        "directory": directory,
        "server": server,
        "port": port,
        "client_identity": CLIENT_IDENTITY,
        "server_identity": SERVER_IDENTITY,
    }
    return {
        end: Template((HERE / f"envoy-{end}.yaml").read_text()).substitute(known)
        for end in ("client", "server")
    }
