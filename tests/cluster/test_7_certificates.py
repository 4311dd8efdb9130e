"""Claim 7: tokens and requests for certificates are checked: what is refused is logged and counted.

The authority stands in a Secret, its roots in every namespace."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from google.protobuf.struct_pb2 import Struct, Value

from tests.cluster.apps import Apps, namespace
from tests.cluster.cluster import KIT_CONFIG, Cluster, ClusterError, wait_until
from tests.cluster.conftest import SYSTEM, Mesh
from ztunnel.identity import csr
from ztunnel.identity.issued import Issued, accept
from ztunnel.model.identity import SpiffeId
from ztunnel.xds.pb.citadel_pb2 import IstioCertificateRequest, IstioCertificateResponse

pytestmark = pytest.mark.timeout(300)

METHOD = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
NAME = f"ztunnel-control.{SYSTEM}.svc"
ROOTS = "ztunnel-ca-root-cert"


@contextmanager
def forwarded(cluster: Cluster, what: str, port: int) -> Iterator[int]:
    """A local port that leads there."""
    process = cluster.popen("-n", SYSTEM, "port-forward", what, f":{port}")
    try:
        assert process.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+) ->", process.stdout.readline())
        if found is None:
            raise ClusterError(f"no port-forward: {process.communicate(timeout=5)}")
        yield int(found[1])
    finally:
        process.terminate()
        process.communicate(timeout=10)


@dataclass
class Authority:
    """The certificate service of the installation, as its callers see it."""

    mesh: Mesh
    port: int

    @property
    def roots(self) -> str:
        return str(self.mesh.cluster.get("configmap", ROOTS, SYSTEM)["data"]["root-cert.pem"])

    def ask(self, token: str, identity: SpiffeId) -> Issued | grpc.RpcError:
        """A certificate for `identity`, taken as a node takes it; or the refusal."""
        made = csr.create(identity)
        metadata = Struct(fields={"ImpersonatedIdentity": Value(string_value=str(identity))})
        request = IstioCertificateRequest(csr=made.csr_pem, validity_duration=3600, metadata=metadata)
        credentials = grpc.ssl_channel_credentials(self.roots.encode())
        options = [("grpc.ssl_target_name_override", NAME)]
        with grpc.secure_channel(f"127.0.0.1:{self.port}", credentials, options) as channel:
            method = channel.unary_unary(METHOD)
            try:
                raw = method(
                    request.SerializeToString(), metadata=[("authorization", f"Bearer {token}")], timeout=20
                )
            except grpc.RpcError as error:
                return error
        answer = IstioCertificateResponse.FromString(raw)
        return accept(answer.cert_chain, identity, made, datetime.now(UTC))

    def counted(self, reason: str) -> float:
        """Refusals for this reason, of all replicas."""
        total = 0.0
        for pod in self.mesh.pods("control"):
            page = self.mesh.cluster.scrape(pod["metadata"]["name"], 15014)
            found = re.search(
                rf'^ztunnel_certificate_refusals_total{{reason="{reason}"}} (\S+)$', page, re.MULTILINE
            )
            total += float(found[1]) if found else 0.0
        return total


@pytest.fixture(scope="module")
def authority(mesh: Mesh) -> Iterator[Authority]:
    with forwarded(mesh.cluster, "service/ztunnel-control", 15012) as port:
        yield Authority(mesh, port)


def token(cluster: Cluster, namespace: str, account: str, pod: str = "", audience: str = "istio-ca") -> str:
    """A token as the kubelet would have one made; bound to a pod where one is named."""
    bound = ["--bound-object-kind", "Pod", "--bound-object-name", pod] if pod else []
    words = ["-n", namespace, "create", "token", account, "--audience", audience, *bound]
    return cluster.call(*words).strip()


def pad(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def expired(cluster: Cluster, good: str) -> str:
    """The same token, expired a while ago (the API server itself has a leeway of a minute): signed by the
    cluster's own key where we have it, and else only saying so, which is enough to be refused."""
    head, body, signature = good.split(".")
    claims: dict[str, Any] = json.loads(pad(body))
    now = int(time.time())
    claims |= {"exp": now - 90, "iat": now - 3600, "nbf": now - 3600}
    text = f"{head}.{encode(json.dumps(claims).encode())}"
    if cluster.kit:
        raw = Path(KIT_CONFIG.parent, "pki", "sa.key").read_bytes()
        key = serialization.load_pem_private_key(raw, None)
        assert isinstance(key, rsa.RSAPrivateKey)
        signature = encode(key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))
    return f"{text}.{signature}"


@dataclass
class World:
    """Who asks and who is asked for: a node proxy of the first node, a pod there, a pod on the other."""

    cluster: Cluster
    apps: Apps
    proxy: str
    near: SpiffeId
    far: SpiffeId

    def proxy_token(self, audience: str = "istio-ca") -> str:
        return token(self.cluster, SYSTEM, "ztunnel", self.proxy, audience)


@pytest.fixture(scope="module")
def world(mesh: Mesh) -> Iterator[World]:
    cluster, nodes = mesh.cluster, mesh.cluster.nodes()
    if len(nodes) < 2:
        raise ClusterError("two nodes are needed")
    with namespace(cluster, f"ztunnel-test-{os.getpid()}-certificates") as apps:
        cluster.apply(apps.account("near"), apps.account("far"))
        apps.start(
            apps.server("near", nodes[0], account="near"),
            apps.server("far", nodes[-1], account="far"),
            apps.server("gone", nodes[-1], account="far"),
        )
        near, far = (SpiffeId("cluster.local", apps.namespace, name) for name in ("near", "far"))
        yield World(cluster, apps, cluster.proxy_on(nodes[0]), near, far)


def test_a_node_proxy_gets_certificates_for_the_pods_of_its_node(authority: Authority, world: World) -> None:
    issued = authority.ask(world.proxy_token(), world.near)
    assert isinstance(issued, Issued), issued
    assert issued.identity == world.near
    assert issued.roots_pem == authority.roots


def test_a_pod_gets_one_for_itself(authority: Authority, world: World) -> None:
    own = token(world.cluster, world.apps.namespace, "far", "far")
    issued = authority.ask(own, world.far)
    assert isinstance(issued, Issued), issued


STATUS = grpc.StatusCode
CASES: dict[str, tuple[Callable[[World], tuple[str, SpiffeId]], grpc.StatusCode, str, str]] = {
    "wrong audience": (
        lambda world: (world.proxy_token("vault"), world.near),
        STATUS.UNAUTHENTICATED,
        "wrong_audience",
        "the token is for vault; it has to be for istio-ca",
    ),
    "wrong account": (
        lambda world: (token(world.cluster, world.apps.namespace, "near", "near"), world.far),
        STATUS.PERMISSION_DENIED,
        "wrong_account",
        "may have certificates for itself only",
    ),
    "another node's pod": (
        lambda world: (world.proxy_token(), world.far),
        STATUS.PERMISSION_DENIED,
        "other_node",
        "/far runs on that node",
    ),
    "an expired token": (
        lambda world: (expired(world.cluster, world.proxy_token()), world.near),
        STATUS.UNAUTHENTICATED,
        "expired_token",
        "expired",
    ),
    "a token that is bound to no pod": (
        lambda world: (token(world.cluster, SYSTEM, "ztunnel"), world.near),
        STATUS.PERMISSION_DENIED,
        "unknown_pod",
        "names no pod",
    ),
    "an invented token": (
        lambda world: (world.proxy_token()[:-8] + "AAAAAAAA", world.near),
        STATUS.UNAUTHENTICATED,
        "bad_token",
        "the API server does not know the token",
    ),
    "another trust domain": (
        lambda world: (world.proxy_token(), SpiffeId("example.org", world.near.namespace, "near")),
        STATUS.PERMISSION_DENIED,
        "other_trust_domain",
        "another trust domain",
    ),
}


@pytest.mark.parametrize(("make", "code", "reason", "message"), CASES.values(), ids=CASES.keys())
def test_refused_logged_and_counted_is(
    authority: Authority,
    world: World,
    make: Callable[[World], tuple[str, SpiffeId]],
    code: grpc.StatusCode,
    reason: str,
    message: str,
) -> None:
    bearer, identity = make(world)
    before = authority.counted(reason)
    refused = authority.ask(bearer, identity)
    assert isinstance(refused, grpc.RpcError), refused
    assert refused.code() is code, refused.details()
    assert message in refused.details()
    wait_until(f"{reason} is counted", lambda: authority.counted(reason) == before + 1, 10)

    def logged() -> str:
        """The log, once it says so."""
        logs = authority.mesh.logs("control", 200)
        said = [line for line in logs.splitlines() if "certificate refused" in line and message in line]
        return logs if any(f'reason="{reason}"' in line for line in said) else ""

    assert bearer not in wait_until(f"{reason} is logged", logged, 10)


def test_the_token_of_a_pod_that_is_gone_is_worth_nothing(authority: Authority, world: World) -> None:
    own = token(world.cluster, world.apps.namespace, "far", "gone")
    words = ["-n", world.apps.namespace, "delete", "pod", "gone", "--grace-period=1", "--wait"]
    world.cluster.call(*words)
    refused = authority.ask(own, world.far)
    assert isinstance(refused, grpc.RpcError), refused
    assert refused.code() is STATUS.UNAUTHENTICATED


def test_the_roots_come_into_a_new_namespace_and_are_put_right_there(
    authority: Authority, apps: Apps
) -> None:
    cluster, wanted = apps.cluster, authority.roots

    def found() -> str:
        try:
            return str(
                cluster.get("configmap", "istio-ca-root-cert", apps.namespace)["data"]["root-cert.pem"]
            )
        except ClusterError:
            return ""

    wait_until("the roots are there", lambda: found() == wanted, 20)
    patch = json.dumps({"data": {"root-cert.pem": "something else"}})
    cluster.call("-n", apps.namespace, "patch", "configmap", "istio-ca-root-cert", "-p", patch)
    wait_until("the roots are put right", lambda: found() == wanted, 20)
    cluster.call("-n", apps.namespace, "delete", "configmap", "istio-ca-root-cert")
    wait_until("the roots are back", lambda: found() == wanted, 20)
    system = cluster.call("-n", "kube-system", "get", "configmaps", "-o", "name")
    assert "ca-root-cert" not in system.replace("kube-root-ca", "")


def test_a_plug_in_ca_whose_root_nobody_trusts_yet_does_not_cut_the_mesh(
    authority: Authority, world: World, tmp_path: Path
) -> None:
    before, cluster = authority.roots, world.cluster
    for words in (["root"], ["cluster", "test"]):
        command = [*words, "--folder", str(tmp_path / "certs")]
        subprocess.run([sys.executable, "-m", "ztunnel", "ca", *command], check=True, capture_output=True)
    files = [f"--from-file={path}" for path in (tmp_path / "certs" / "test").iterdir()]
    try:
        cluster.call("-n", SYSTEM, "create", "secret", "generic", "cacerts", *files)

        def told() -> bool:
            return "its root is none that the mesh trusts so far" in authority.mesh.logs("control", 200)

        wait_until("it is refused", told, 30)
        issued = authority.ask(world.proxy_token(), world.near)
        assert isinstance(issued, Issued), issued
        assert issued.roots_pem == before == authority.roots
    finally:
        cluster.call("-n", SYSTEM, "delete", "secret", "cacerts", "--ignore-not-found")
