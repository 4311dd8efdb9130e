"""Makes the ground on which both waypoints meet: a laboratory, the same pods for each, ours and the Envoy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory

from bench.cells import ENVOY, OURS
from bench.prepare import CERTIFICATE_SECONDS, start_envoy
from bench.waypoint.rules import Rules
from ztunnel.demo.cluster import Cluster, Pod
from ztunnel.demo.operate import Laboratory
from ztunnel.identity import csr
from ztunnel.identity.sign import open_authority
from ztunnel.model.identity import SpiffeId

HERE = Path(__file__).parent
NAMESPACES = {OURS: "ours", ENVOY: "envoy"}


@dataclass(frozen=True, slots=True)
class Contestant:
    """A waypoint: `client` calls `host`, its service, with these header fields; `waypoint` is the pod in
    which it runs."""

    name: str
    client: str
    host: str
    waypoint: Pod
    headers: tuple[str, ...] = ()


@contextmanager
def ground(
    name: str, *, ours: bool = True, rules: Rules | None = None
) -> Iterator[tuple[Laboratory, tuple[Contestant, ...]]]:
    """A laboratory and who is measured in it, ours first; all gone at the end.

    Args:
        ours: without, only the Envoy stands.
        rules: what both have to follow; without, they pass on everything.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="ztunnel-bench-")))
        directory.chmod(0o755)  # nginx gives up root
        laboratory = stack.enter_context(Laboratory(name))
        names = [each for each in NAMESPACES if ours or each != OURS]
        laboratory.up("".join(manifests(each, directory) for each in names))
        node = "node-2"
        if ours:
            node = _waypoint_pod(laboratory.cluster(), OURS).node.name
        if rules is not None and ours:
            laboratory.apply(rules.manifests(NAMESPACES[OURS]))
        laboratory.apply(_text("foreign.yaml", namespace=NAMESPACES[ENVOY], node=node))
        cluster = laboratory.cluster()
        _start(stack, laboratory, directory, rules)
        headers = (rules.header(),) if rules is not None else ()
        yield laboratory, tuple(_contestant(cluster, each, headers) for each in names)


def manifests(name: str, directory: Path) -> str:
    """What stands around a contestant's waypoint, and ours itself; the servers write below `directory`."""
    namespace = NAMESPACES[name]
    text = _text("manifests.yaml", namespace=namespace, directory=directory, bench=HERE)
    return text + (_text("gateway.yaml", namespace=namespace) if name == OURS else "")


def envoy(directory: Path, waypoint: str, server: str, rules: Rules | None = None) -> str:
    """The configuration of the Envoy, given the addresses of its pod and of the server's.

    `directory` holds ca.pem, wp.pem and wp.key.
    """
    known = {"directory": directory, "waypoint": waypoint, "server": server}
    routes, filters = (rules.routes(), rules.filters()) if rules is not None else ("", "")
    return _text("envoy.yaml", **known, namespace=NAMESPACES[ENVOY], routes=routes, filters=filters)


def _text(file: str, **known: object) -> str:
    return Template((HERE / file).read_text()).substitute(known)


def _start(stack: ExitStack, laboratory: Laboratory, directory: Path, rules: Rules | None) -> None:
    """The Envoy, with a certificate of the laboratory's own authority."""
    [key] = laboratory.names.directory.rglob("root-key.pem")
    identity = SpiffeId("cluster.local", NAMESPACES[ENVOY], "wp")
    request = csr.create(identity)
    authority = open_authority(key.parent)
    leaf, roots = authority.sign(request.csr_pem, identity, CERTIFICATE_SECONDS, datetime.now(UTC))
    for file, text in (("wp.key", request.key_pem), ("wp.pem", leaf), ("ca.pem", roots)):
        (directory / file).write_text(text)
    cluster = laboratory.cluster()
    pod = _waypoint_pod(cluster, ENVOY)
    server = next(one for one in cluster.pods if one.full_name == f"{NAMESPACES[ENVOY]}/server")
    text = envoy(directory, str(pod.address(IPv4Address)), str(server.address(IPv4Address)), rules)
    start_envoy(stack, laboratory, pod.full_name, directory / "envoy.yaml", text)


def _contestant(cluster: Cluster, name: str, headers: tuple[str, ...]) -> Contestant:
    namespace = NAMESPACES[name]
    service = next(one for one in cluster.services if (one.namespace, one.name) == (namespace, "server"))
    host = next(ip for ip in service.addresses if isinstance(ip, IPv4Address))
    return Contestant(name, f"{namespace}/client", str(host), _waypoint_pod(cluster, name), headers)


def _waypoint_pod(cluster: Cluster, name: str) -> Pod:
    """Ours is of a Deployment and has a name that was made up."""
    pods = [one for one in cluster.pods if one.namespace == NAMESPACES[name]]
    return next(one for one in pods if one.name == "wp" or one.name.startswith("wp-"))
