"""Certificates, a server of ours, and a server of grpcio's, for the tests of gRPC."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ztunnel.rpc.call import Channel, open_channel
from ztunnel.rpc.limits import CLIENT, SERVER, Limits
from ztunnel.rpc.serve import Handler, Server, Service

HOST = "control.test"


@dataclass(frozen=True)
class Pair:
    """A key and its certificate, with the root that signed it, as PEM."""

    key: bytes
    chain: bytes
    root: bytes


def _alternative(name: str) -> x509.GeneralName:
    return x509.DNSName(name) if name[-1].isalpha() else x509.IPAddress(ip_address(name))


def make_pair(*names: str, days: int = 1) -> Pair:
    """A root, and a leaf of it for DNS names and addresses."""
    now = datetime.now(UTC)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def certificate(subject: str, public: Any, ca: bool) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")]))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if not ca:
            alternatives = [
                x509.DNSName(name) if name[-1].isalpha() else x509.IPAddress(ip_address(name))
                for name in names
            ]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return builder.sign(root_key, hashes.SHA256())

    pem = serialization.Encoding.PEM
    return Pair(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        certificate("leaf", key.public_key(), False).public_bytes(pem),
        certificate("root", root_key.public_key(), True).public_bytes(pem),
    )


def server_context(pair: Pair, directory: Path) -> ssl.SSLContext:
    """As a control plane has it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2"])
    file = directory / "serving.pem"
    file.write_bytes(pair.key + pair.chain)
    context.load_cert_chain(file)
    return context


def client_context(pair: Pair) -> ssl.SSLContext:
    """As a node has it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    context.load_verify_locations(cadata=pair.root.decode())
    return context


@pytest.fixture(scope="session")
def pair() -> Pair:
    return make_pair(HOST, "127.0.0.1", "::1")


@dataclass
class Running:
    """A server of ours that runs."""

    server: Server
    pair: Pair
    port: int
    host: str
    bugs: list[BaseException] = field(default_factory=list)

    @asynccontextmanager
    async def channel(self, **limits: Any) -> AsyncIterator[Channel]:
        """A channel of ours to it."""
        made = replace(CLIENT, **limits)
        async with open_channel(
            self.host, self.port, lambda: client_context(self.pair), HOST, made
        ) as opened:
            yield opened

    @contextmanager
    def grpcio(self, *options: tuple[str, Any], with_certificate: bool = False) -> Iterator[grpc.Channel]:
        """A channel of grpcio's to it."""
        own = (self.pair.key, self.pair.chain) if with_certificate else ()
        credentials = grpc.ssl_channel_credentials(self.pair.root, *own)
        named = [("grpc.ssl_target_name_override", HOST), *options]
        target = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        with grpc.secure_channel(target, credentials, named) as channel:
            yield channel


class Bugs:
    """A boundary that keeps what ends in it."""

    def __init__(self) -> None:
        self.seen: list[BaseException] = []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the boundary
            self.seen.append(error)


Serve = Callable[..., Any]


@pytest.fixture
def serve(pair: Pair, tmp_path: Path) -> Serve:
    """`async with serve(methods, host=..., limit=...) as running`: a server of ours."""
    context = server_context(pair, tmp_path)

    @asynccontextmanager
    async def run(
        methods: Mapping[str, Handler],
        host: str = "127.0.0.1",
        limits: Limits = SERVER,
        **settings: Any,
    ) -> AsyncIterator[Running]:
        bugs = Bugs()
        settings.setdefault("context", lambda: context)
        server = Server(Service(methods=methods, boundary=bugs, rng=Random(1), limits=limits, **settings))
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host=host)
            await nursery.start(server.run, listeners)
            yield Running(server, pair, listeners[0].socket.getsockname()[1], host, bugs.seen)
            nursery.cancel_scope.cancel()

    return run


class Generic(grpc.GenericRpcHandler):
    """Methods of a grpcio server by path, with bytes for messages."""

    def __init__(self, methods: Mapping[str, grpc.RpcMethodHandler]) -> None:
        self._methods = methods

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._methods.get(details.method)


@contextmanager
def plain_grpcio_server(
    host: str, methods: Mapping[str, grpc.RpcMethodHandler], port: int = 0
) -> Iterator[int]:
    """A server of grpcio's in plaintext; its port."""
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, [Generic(methods)])
        at = f"[{host}]" if ":" in host else host
        found = server.add_insecure_port(f"{at}:{port}")
        server.start()
        try:
            yield found
        finally:
            server.stop(None).wait()


@contextmanager
def grpcio_server(
    pair: Pair,
    methods: Mapping[str, grpc.RpcMethodHandler],
    *options: tuple[str, Any],
    host: str = "127.0.0.1",
) -> Iterator[tuple[grpc.Server, int]]:
    """A server of grpcio's and its port."""
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, [Generic(methods)], options=list(options))
        credentials = grpc.ssl_server_credentials([(pair.key, pair.chain)])
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        try:
            yield server, port
        finally:
            server.stop(None).wait()
