"""What the laboratory and the Envoys are told: the texts beside this module, filled in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template

from bench.cells import Route
from bench.contestants import (
    ENVOY_PORTS,
    ENVOY_SINK_PORT,
    MESHED,
    PLAIN,
    PLAIN_PORT,
    PROXIED,
    SINK_PORT,
    STRICT,
)
from ztunnel.model.identity import SpiffeId

HERE = Path(__file__).parent
MODES = {MESHED: "ambient", STRICT: "ambient", PLAIN: "none", PROXIED: "none"}
SAME_NODE = {STRICT: "mtls"}
ENVOY_LOG = (
    "[%START_TIME%] %DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %UPSTREAM_HOST% %REQ(:AUTHORITY)% "
    "%DOWNSTREAM_PEER_URI_SAN% %UPSTREAM_PEER_URI_SAN% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% "
    "%RESPONSE_FLAGS%\\n"
)
"""What our own line tells of a connection."""


def identity(namespace: str, end: str) -> SpiffeId:
    """Of the `client` or the `server` of a contestant that is not ours."""
    return SpiffeId("cluster.local", namespace, end)


def manifests(directory: Path, more: Iterable[str] = ()) -> str:
    """Pods and policy of all contestants, `more` being the namespaces of peers; the servers write below
    `directory`."""
    text = Template((HERE / "manifests.yaml").read_text())
    return "---\n".join(
        text.substitute(
            directory=directory,
            bench=HERE,
            namespace=namespace,
            mode=mode,
            same_node=SAME_NODE.get(namespace, "auto"),
            sink=SINK_PORT,
        )
        for namespace, mode in (MODES | dict.fromkeys(more, "none")).items()
    )


def envoys(directory: Path, addresses: Mapping[str, str], log: bool) -> Mapping[str, str]:
    """The configuration of the Envoys: of the `client`'s, and of those of its servers, `far` and `near`.

    Args:
        directory: holds ca.pem and both ends' client.pem, client.key, server.pem and server.key; their logs
            are written there.
        addresses: of all pods.
        log: whether they write access logs.
    """
    ends = {"client": "client", "far": "server", "near": "server"}
    return {
        name: Template((HERE / f"envoy-{end}.yaml").read_text()).substitute(
            directory=directory,
            log=access_log(directory / f"access-{name}.log") if log else "[]",
            server=addresses[f"{PROXIED}/{'far' if name == 'client' else name}"],
            near=addresses[f"{PROXIED}/near"],
            outside=addresses[f"{PLAIN}/far"],
            far_port=ENVOY_PORTS[Route.TWO_NODES],
            near_port=ENVOY_PORTS[Route.SAME_NODE],
            out_port=ENVOY_PORTS[Route.PLAIN_OUT],
            in_port=PLAIN_PORT,
            sink_port=ENVOY_SINK_PORT,
            sink=SINK_PORT,
            client_identity=identity(PROXIED, "client"),
            server_identity=identity(PROXIED, "server"),
        )
        for name, end in ends.items()
    }


def access_log(file: Path) -> str:
    """Envoy's `access_log`: a line for each connection, written as Envoy writes files, in turns."""
    kind = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
    return (
        f'[{{name: file, typed_config: {{"@type": {kind}, path: "{file}", '
        f'log_format: {{text_format_source: {{inline_string: "{ENVOY_LOG}"}}}}}}}}]'
    )
