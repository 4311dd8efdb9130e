"""The control plane of a laboratory as a process of its own, which its node proxies reach over the network.

It runs on the first node, beside that node's proxy, reads the laboratory's objects, and knows each node by
a token of its own. Whether a laboratory has one is said by its directory.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ztunnel.demo import allot, run
from ztunnel.demo.call import get
from ztunnel.demo.cluster import Node, Pod
from ztunnel.demo.command import in_node, node_environment, program
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.names import Names

PORT = 15012
_READINESS_PORT = 15031  # 15021 is the node proxy's
_READY_SECONDS = 15.0
_PAUSE_SECONDS = 0.02
_TAIL_LINES = 15


def admit(names: Names, nodes: Iterable[Node], waypoints: Iterable[Pod] = ()) -> bool:
    """Give each node and each waypoint's account a token, if it has none; whether there are new ones, which a
    control plane that runs does not know."""
    wanted = {names.token(node.name): f"system:node:{node.name},{node.name}" for node in nodes}
    for pod in waypoints:
        space, account = pod.namespace, pod.account
        user = f"system:serviceaccount:{space}:{account},{space}.{account}"
        wanted[names.account_token(space, account)] = user
    fresh = {file: user for file, user in wanted.items() if not file.exists()}
    for file, user in fresh.items():
        token = secrets.token_urlsafe(24)
        file.parent.mkdir(parents=True, exist_ok=True)
        for path, text in ((file, token), (names.control / "tokens", f"{token},{user}\n")):
            with open(path, "a", opener=_private) as secret:
                secret.write(text)
    return bool(fresh)


def start(names: Names, first: Node, inherited: Mapping[str, str] = os.environ) -> subprocess.Popen[bytes]:
    """Run it until `run.end`, and return when it serves.

    Raises:
        LaboratoryFailed: it ended, or does not serve in time; with the end of its log.
    """
    environment = {
        **node_environment(inherited),
        "ZTUNNEL_READINESS_ADDRESS": f"127.0.0.1:{_READINESS_PORT}",
        "ZTUNNEL_SERVING_NAMES": ",".join(map(str, allot.node_addresses(first.number))),
    }
    names.control_cgroup.mkdir(parents=True, exist_ok=True)
    words = in_node(names, first.name, names.control_cgroup, _command(names, inherited))
    process = run.background(words, environment, names.control / "log", "ab")
    _until_ready(names, first, process)
    return process


def address(first: Node) -> str:
    """Where node proxies find it."""
    return f"https://{allot.node_addresses(first.number)[0]}:{PORT}"


def node_variables(names: Names, node: str, first: Node) -> dict[str, str]:
    """What tells a node proxy of it."""
    told = _variables(names, first)
    return {**told, "AUTH_TOKEN": str(names.token(node)), "POD_NAME": f"ztunnel-{node}"}


def waypoint_variables(names: Names, pod: Pod, first: Node) -> dict[str, str]:
    """What tells a waypoint of it."""
    token = names.account_token(pod.namespace, pod.account)
    return {**_variables(names, first), "AUTH_TOKEN": str(token)}


def _variables(names: Names, first: Node) -> dict[str, str]:
    root = str(names.control / "state" / "ca" / "root-cert.pem")
    return {"XDS_ADDRESS": address(first), "XDS_ROOT_CA": root, "CA_ROOT_CA": root}


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _command(names: Names, inherited: Mapping[str, str]) -> Sequence[str]:
    options = {
        "--manifests": names.manifests,
        "--tokens": names.control / "tokens",
        "--state-dir": names.control / "state",
    }
    words = [str(word) for option in options.items() for word in option]
    return [*program(inherited), "control", *words]


def _until_ready(names: Names, first: Node, process: subprocess.Popen[bytes]) -> None:
    netns, log = names.netns(names.node(first.name)), names.control / "log"
    deadline = time.monotonic() + _READY_SECONDS
    while not _is_ready(netns):
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
        if process.poll() is not None:
            raise LaboratoryFailed(f"the control plane ended with {process.returncode}; its log:\n{tail}")
        if time.monotonic() > deadline:
            raise LaboratoryFailed(f"the control plane is not ready; its log:\n{tail}")
        time.sleep(_PAUSE_SECONDS)


def _is_ready(netns: Path) -> bool:
    try:
        return get(netns, _READINESS_PORT, "/healthz/ready")[0] == 200
    except LaboratoryFailed:
        return False
