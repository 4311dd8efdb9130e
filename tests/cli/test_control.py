"""`ztunnel control` as a process: it serves, says what it lacks, drains, and takes up after a kill."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from tests.control.calling import PROXY, Pods, peer
from ztunnel.ca.caller import Caller, Proof
from ztunnel.ca.node_authorizer import NodeAuthorizer
from ztunnel.cli.control import node_of
from ztunnel.cli.main import main
from ztunnel.control.connect import Upstream
from ztunnel.control.fetch import NetworkCertificates, NetworkReports, NetworkSessions
from ztunnel.errors import NoCertificate
from ztunnel.identity import csr
from ztunnel.model.identity import SpiffeId
from ztunnel.rpc.status import RpcError
from ztunnel.xds.pb.discovery_pb2 import DeltaDiscoveryRequest
from ztunnel.xds.resource import ADDRESS

TOKEN = "the-token-of-node-one"
NAMESPACE = (
    "apiVersion: v1\nkind: Namespace\nmetadata: {name: t, labels: {istio.io/dataplane-mode: ambient}}\n"
)
POD = """---
apiVersion: v1
kind: Pod
metadata: {{name: {0}, namespace: t}}
spec: {{nodeName: n1, serviceAccountName: {0}}}
status: {{podIP: 10.0.0.{1}, phase: Running}}
"""

pytestmark = pytest.mark.timeout(60)


@dataclass
class Control:
    """One process and what it says; ports are found out from its log and given again."""

    path: Path
    process: subprocess.Popen[str] | None = None
    ports: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        self.ports = [one.getsockname()[1] for one in held]
        for one in held:
            one.close()

    @property
    def environment(self) -> dict[str, str]:
        grpc, monitoring, readiness = (f"127.0.0.1:{port}" for port in self.ports)
        return {
            "ZTUNNEL_GRPC_ADDRESS": grpc,
            "ZTUNNEL_MONITORING_ADDRESS": monitoring,
            "ZTUNNEL_READINESS_ADDRESS": readiness,
            "ZTUNNEL_SERVING_NAMES": "127.0.0.1",
        }

    @property
    def flags(self) -> list[str]:
        return [
            f"--{name}={self.path / value}"
            for name, value in (("manifests", "mesh"), ("tokens", "tokens"), ("state-dir", "state"))
        ]

    def start(self) -> None:
        log = (self.path / "log").open("a")
        command = [sys.executable, "-m", "ztunnel", "control", *self.flags]
        self.process = subprocess.Popen(
            command, env={**os.environ, **self.environment}, stdout=log, stderr=log, text=True
        )
        log.close()
        while not self.is_ready():
            assert self.process.poll() is None, self.log
            time.sleep(0.02)

    def is_ready(self) -> bool:
        try:
            return self.get(2, "/healthz/ready").startswith("ready")
        except OSError:
            return False

    def get(self, port: int, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[port]}{path}", timeout=5) as answer:
            return answer.read().decode()

    def figure(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.get(1, "/metrics"), re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def reaches(self, name: str, value: float) -> None:
        """A scrape may be a second old."""
        while (await trio.to_thread.run_sync(self.figure, name)) != value:  # noqa: ASYNC110 (a process)
            await trio.sleep(0.05)

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)

    @property
    def log(self) -> str:
        return (self.path / "log").read_text()

    def upstream(self, token: str = TOKEN) -> Upstream:
        roots = str(self.path / "state" / "ca" / "root-cert.pem")
        return Upstream("XDS", f"https://127.0.0.1:{self.ports[0]}", roots, token=token)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    (tmp_path / "mesh").mkdir()
    (tmp_path / "mesh" / "a.yaml").write_text(NAMESPACE + POD.format("alice", 1))
    (tmp_path / "tokens").write_text(f"{TOKEN},system:node:n1,1\n")
    made = Control(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end(signal.SIGKILL)


async def names(control: Control) -> set[str]:
    """What a node proxy is told at first."""
    async with NetworkSessions(control.upstream()).open() as (requests, responses):
        await requests.send(DeltaDiscoveryRequest(type_url=ADDRESS))
        return {one.name for one in (await responses.receive()).resources}


async def stay(control: Control) -> None:
    """Subscribe, have the process end, and wait for what it says."""
    async with NetworkSessions(control.upstream()).open() as (requests, responses):
        await requests.send(DeltaDiscoveryRequest(type_url=ADDRESS))
        await responses.receive()
        assert control.process is not None
        control.process.send_signal(signal.SIGTERM)
        await responses.receive()


async def test_it_serves_signs_counts_and_drains(control: Control) -> None:
    await trio.to_thread.run_sync(control.start)
    async with NetworkSessions(control.upstream()).open() as (requests, responses):
        await requests.send(DeltaDiscoveryRequest(type_url=ADDRESS))
        first = await responses.receive()
        assert [one.name for one in first.resources] == ["Kubernetes//Pod/t/alice"]
        await requests.send(DeltaDiscoveryRequest(type_url=ADDRESS, response_nonce=first.nonce))
        (control.path / "mesh" / "b.yaml").write_text(POD.format("bob", 2))
        assert [one.name for one in (await responses.receive()).resources] == ["Kubernetes//Pod/t/bob"]
        await control.reaches('pilot_xds{version="0.1.0"}', 1)
        await control.reaches("pilot_proxy_convergence_time_count", 1)
        for account, error in (("alice", None), ("mallory", "no pod of t/mallory runs on that node")):
            identity = SpiffeId("cluster.local", "t", account)
            asked = csr.create(identity).csr_pem
            source = NetworkCertificates(control.upstream())
            if error is None:
                assert len(await source.create(asked, identity, 60)) == 2
            else:
                with pytest.raises(NoCertificate, match=error):
                    await source.create(asked, identity, 60)
        await control.reaches("citadel_server_csr_count", 2)
        await control.reaches("citadel_server_success_cert_issuance_count", 1)
        with pytest.raises(RpcError, match="UNIMPLEMENTED"):  # a folder's pods are written on by nobody
            await NetworkReports(control.upstream()).send([])
        with pytest.raises(RpcError, match="UNAUTHENTICATED"):
            async with NetworkSessions(control.upstream("somebody-elses-token")).open() as (_, others):
                await others.receive()
    with pytest.raises(RpcError, match="leaving"):
        await stay(control)
    assert control.process is not None
    assert await trio.to_thread.run_sync(control.process.wait) == 0
    assert "draining" in control.log


async def test_after_a_kill_it_is_the_same_authority_and_the_same_world(control: Control) -> None:
    await trio.to_thread.run_sync(control.start)
    assert await names(control) == {"Kubernetes//Pod/t/alice"}
    root = (control.path / "state" / "ca" / "root-cert.pem").read_text()
    assert control.end(signal.SIGKILL) == -signal.SIGKILL
    (control.path / "mesh" / "b.yaml").write_text(POD.format("bob", 2))
    await trio.to_thread.run_sync(control.start)
    assert await names(control) == {"Kubernetes//Pod/t/alice", "Kubernetes//Pod/t/bob"}
    assert (control.path / "state" / "ca" / "root-cert.pem").read_text() == root


def test_a_taken_port_is_named(control: Control) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flags = ["control", "--manifests", control.path / "mesh", "--tokens", control.path / "tokens"]
        flags += ["--state-dir", control.path / "state", "--grpc-address", f"127.0.0.1:{port}"]
        done = CliRunner().invoke(main, list(map(str, flags)), env=control.environment)
    assert done.exit_code == 1
    assert f"gRPC address 127.0.0.1:{port}" in done.output
    assert "ZTUNNEL_GRPC_ADDRESS" in done.output


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "Give --manifests DIR"),
        (["--manifests", "{}/mesh"], "Give --tokens FILE"),
        (["--kubeconfig", "{}/none"], "none: cannot be used as a Kubernetes client's configuration"),
        (
            ["--manifests", "{}/mesh", "--tokens", "{}/none"],
            "none: cannot be read: No such file or directory\n",
        ),
        (["--manifests", "{}/mesh", "--tokens", "{}/mesh/a.yaml"], "a.yaml:1: "),
        (["--manifests", "{}/none", "--tokens", "{}/tokens", "--state-dir", "{}/state"], "none"),
        (["--manifests", "{}/mesh", "--tokens", "{}/tokens", "--grpc-address", "x"], "--grpc-address"),
    ],
)
def test_what_cannot_be_run_says_why(control: Control, flags: list[str], said: str) -> None:
    arguments = ["control", *(flag.format(control.path) for flag in flags)]
    done = CliRunner().invoke(main, arguments, env=control.environment)
    assert done.exit_code in (1, 2)
    assert said in done.output
    assert "Traceback" not in done.output


class Authenticated:
    """Whoever calls is this one."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def __call__(self, metadata: Mapping[str, str], peer: object) -> Caller:
        await trio.lowlevel.checkpoint()
        return self._caller


@pytest.mark.parametrize(("account", "node"), [("ztunnel", "n1"), ("web", "")])
async def test_node_proxies_alone_tell_of_pods_and_of_those_of_their_node(account: str, node: str) -> None:
    authorizer = NodeAuthorizer(Pods(PROXY), ["ztunnel-system/ztunnel"], "cluster.local")
    identity = SpiffeId("cluster.local", "ztunnel-system", account)
    caller = Authenticated(Caller(identity, Proof.TOKEN, "ztunnel-1", "uid-ztunnel-1", "n1"))
    if node:
        assert await node_of(caller, authorizer, {}, peer()) == node  # type: ignore[arg-type]
    else:
        with pytest.raises(RpcError, match=r"PERMISSION_DENIED.*may not tell of pods"):
            await node_of(caller, authorizer, {}, peer())  # type: ignore[arg-type]
