"""The other end of HBONE, of other people's parts: certificates signed as told, `ssl`, the h2 library."""

from __future__ import annotations

import os
import select
import socket
import ssl
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
from cryptography.hazmat.primitives import serialization

from tests.identity import builders
from tests.mesh.lab import Mesh
from ztunnel.identity import csr
from ztunnel.identity.authority import Authority
from ztunnel.identity.sign import open_authority
from ztunnel.model.identity import SpiffeId, parse_spiffe_id

DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class Paper:
    """A key, a chain and the roots, in PEM."""

    key: str
    chain: str
    roots: str

    def context(self, role: int, with_leaf: bool = True) -> ssl.SSLContext:
        """TLS as the mesh speaks it."""
        context = ssl.SSLContext(role)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.roots)
        context.set_alpn_protocols(["h2"])
        if with_leaf:
            memory = os.memfd_create("paper")
            with open(memory, "w") as file:
                file.write(self.key + self.chain)
                file.flush()
                context.load_cert_chain(f"/proc/self/fd/{memory}")
        return context


def authority(mesh: Mesh) -> Authority:
    """The laboratory's own."""
    [key] = mesh.laboratory.names.directory.rglob("root-key.pem")
    return open_authority(key.parent)


def issue(signer: Authority, identity: str, seconds: float = DAY_SECONDS, age: float = 0.0) -> Paper:
    """A certificate for any identity, of `age` seconds."""
    who: SpiffeId = parse_spiffe_id(identity)
    made = csr.create(who)
    now = datetime.fromtimestamp(time.time() - age, UTC)
    *chain, roots = signer.sign(made.csr_pem, who, seconds, now)
    return Paper(made.key_pem, "".join(chain), roots)


def strange(mesh: Mesh, leaf: builders.Leaf, root: builders.Authority | None = None) -> Paper:
    """A leaf of tests/identity, signed by the laboratory's root unless another one is given."""
    signer = authority(mesh)
    own = builders.Authority(key=signer.key, certificate=signer.certificate)
    signed = leaf.signed_by(root or own)
    pem = signed.public_bytes(serialization.Encoding.PEM).decode()
    return Paper(builders.pem_of(leaf.key), pem, signer.roots_pem)


@dataclass
class Peer:
    """An HTTP/2 client on one TLS connection to a pod's 15008, blocking."""

    tls: ssl.SSLSocket
    http: h2.connection.H2Connection
    events: list[h2.events.Event] = field(default_factory=list)

    @classmethod
    def dial(cls, mesh: Mesh, where: str, address: str, paper: Paper, with_leaf: bool = True) -> Peer:
        """Connect and shake hands. Raises OSError (ssl.SSLError is one)."""
        sock = mesh.connect(where, address, 15008)
        tls = paper.context(ssl.PROTOCOL_TLS_CLIENT, with_leaf).wrap_socket(sock)
        mesh.keep(tls)
        config = h2.config.H2Configuration(client_side=True, header_encoding=None)
        peer = cls(tls, h2.connection.H2Connection(config))
        peer.http.initiate_connection()
        peer.flush()
        return peer

    def flush(self) -> None:
        """Send what the library wants sent."""
        self.tls.sendall(self.http.data_to_send())

    def ask(self, authority: str, headers: tuple[tuple[str, str], ...] = (), method: str = "CONNECT") -> int:
        """Begin a stream; its number."""
        stream = self.http.get_next_available_stream_id()
        fields = [(":method", method), (":authority", authority), *headers]
        self.http.send_headers(stream, fields)
        self.flush()
        return stream

    def wait(self, kind: type[h2.events.Event], stream: int | None = None) -> h2.events.Event:
        """The next event of that kind. Raises ConnectionError where the connection ends before."""
        while True:
            for event in self.events:
                if isinstance(event, kind) and (stream is None or event.stream_id == stream):
                    self.events.remove(event)
                    return event
            octets = self.tls.recv(1 << 16)
            if not octets:
                raise ConnectionError(f"the connection ended before {kind.__name__}: {self.events}")
            self.events += self.http.receive_data(octets)
            self.flush()

    def status(self, stream: int) -> int:
        """The answer to a request."""
        answer = self.wait(h2.events.ResponseReceived, stream)
        return int(dict(answer.headers)[b":status"])

    def send(self, stream: int, octets: bytes, end: bool = False) -> None:
        """Send on a stream."""
        self.http.send_data(stream, octets, end)
        self.flush()

    def read(self, stream: int, size: int) -> bytes:
        """The next `size` bytes of a stream."""
        got = b""
        while len(got) < size:
            event = self.wait(h2.events.DataReceived, stream)
            self.http.acknowledge_received_data(event.flow_controlled_length, stream)
            self.flush()
            got += event.data
        return got

    def connect(self, authority: str, headers: tuple[tuple[str, str], ...] = ()) -> tuple[int, int]:
        """Ask for a tunnel: the stream and the status."""
        stream = self.ask(authority, headers)
        return stream, self.status(stream)


def without_proxy(mesh: Mesh, node: str) -> None:
    """Leave the pods of a node in the mesh as the world has it, with no proxy of ours that is theirs."""
    laboratory = mesh.laboratory
    laboratory.kill_node(node)
    pins = str(laboratory.names.pins(node))
    subprocess.run(
        [sys.executable, "-m", "ztunnel", "clean", "--force", "--pins", pins], check=True, capture_output=True
    )


def client_hello(version: ssl.TLSVersion, protocols: list[str]) -> bytes:
    """What a client of that version says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = version
    if protocols:
        context.set_alpn_protocols(protocols)
    said = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), said)
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return said.read()


def closed_within(socks: list[socket.socket], seconds: float) -> list[socket.socket]:
    """Those of the connections that the other side ends in time."""
    deadline, waiting, closed = time.monotonic() + seconds, list(socks), []
    while waiting and (left := deadline - time.monotonic()) > 0:
        for sock in select.select(waiting, [], [], left)[0]:
            try:
                ended = not sock.recv(1 << 16)
            except OSError:
                ended = True
            if ended:
                waiting.remove(sock)
                closed.append(sock)
    return closed
