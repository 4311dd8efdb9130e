"""Sessions of ours on real sockets with real TLS, and `h2` at the other end: an independent peer."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import h2.config
import h2.connection
import h2.events
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.flow.driving import Bugs, Clock, read, stream_pair
from ztunnel.errors import ConnectionFailed
from ztunnel.flow.engine import Engine
from ztunnel.flow.flow import Counts
from ztunnel.hbone.answer import IncomingTunnel
from ztunnel.hbone.carry import Session
from ztunnel.hbone.ledger import Ledger
from ztunnel.hbone.link import TlsLink
from ztunnel.http2.fields import Fields, push_fields
from ztunnel.http2.limits import Limits

ROUNDS = 20_000
CONNECT: Fields = ((b":method", b"CONNECT"), (b":authority", b"10.0.0.1:80"))
OK: Fields = ((b":status", b"200"), (b"baggage", b"k8s.cluster.name=c"))
CONNECT_BLOCK, OK_BLOCK = push_fields(CONNECT), push_fields(OK)


@dataclass(frozen=True)
class Contexts:
    """TLS 1.3 for both ends, with one self-signed certificate: who peers are is not these tests' matter."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def new_contexts() -> Contexts:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "peer")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with tempfile.NamedTemporaryFile() as file:
        file.write(private + certificate.public_bytes(pem))
        file.flush()
        os.fsync(file.fileno())
        server.load_cert_chain(file.name)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    for context in (server, client):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["h2"])
    server.num_tickets = 0
    return Contexts(server, client)


def link_pair(
    contexts: Contexts, ends: tuple[socket.socket, socket.socket] | None = None
) -> tuple[TlsLink, TlsLink]:
    """Both ends of a TLS connection whose handshake is done: client, server."""
    near, far = ends or stream_pair()
    bios = [ssl.MemoryBIO() for _ in range(4)]
    client = TlsLink(near, contexts.client.wrap_bio(bios[0], bios[1]), bios[0], bios[1])
    server = TlsLink(far, contexts.server.wrap_bio(bios[2], bios[3], server_side=True), bios[2], bios[3])
    for _ in range(3):
        for one, other in ((client, server), (server, client)):
            with contextlib.suppress(ssl.SSLWantReadError):
                one.tls.do_handshake()
            other.incoming.write(one.outgoing.read())
    return client, server


class H2Peer:
    """`h2` on a link. Nothing is sent or read but by `pump`."""

    def __init__(self, link: TlsLink, client: bool) -> None:
        config = h2.config.H2Configuration(client_side=client, header_encoding=None)
        self.link = link
        self.conn = h2.connection.H2Connection(config)
        self.events: list[h2.events.Event] = []
        self.data: dict[int, bytes] = {}
        self.acknowledges = True
        self.reads = True
        self.parses = True
        self.raw = b""
        self.ended = False
        self.conn.initiate_connection()

    def pump(self) -> bool:
        """Send what there is and read what has come; whether anything has."""
        self.write(self.conn.data_to_send())
        if not self.reads or self.ended:
            return False
        try:
            cipher = self.link.sock.recv(1 << 18)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            cipher = b""
        if not cipher:
            self.ended = True
            return True
        self.link.incoming.write(cipher)
        try:
            while plain := self.link.tls.read(1 << 18):
                self.raw += plain
                if self.parses:
                    self._take(self.conn.receive_data(plain))
        except ssl.SSLWantReadError:
            pass
        self.write(self.conn.data_to_send())
        return True

    def write(self, plain: bytes) -> None:
        """Send these bytes, whatever they are."""
        if plain:
            self.link.tls.write(plain)
        cipher = self.link.outgoing.read()
        while cipher:
            try:
                cipher = cipher[self.link.sock.send(cipher) :]
            except (BrokenPipeError, ConnectionResetError):
                return

    def of(self, kind: type[h2.events.Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def close(self) -> None:
        self.link.sock.close()

    def _take(self, events: list[h2.events.Event]) -> None:
        for event in events:
            self.events.append(event)
            if isinstance(event, h2.events.DataReceived):
                self.data[event.stream_id] = self.data.get(event.stream_id, b"") + event.data
                if self.acknowledges and event.flow_controlled_length:
                    self.conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)


@dataclass
class Caller:
    """An application that calls through a tunnel: its own socket, and what it was told."""

    sock: socket.socket
    counts: Counts = field(default_factory=Counts)
    log: list[tuple[Any, ...]] = field(default_factory=list)
    handed_back: socket.socket | None = None

    def established(self, untrusted: Fields) -> None:
        self.log.append(("established", untrusted))

    def refused(self, status: int, untrusted: Fields, app: socket.socket) -> None:
        self.log.append(("refused", status))
        self.handed_back = app

    def lost(self, app: socket.socket, error: ConnectionFailed) -> None:
        self.log.append(("lost", error))
        self.handed_back = app

    def ended(self, error: ConnectionFailed | None) -> None:
        self.log.append(("ended", error))

    @property
    def words(self) -> list[str]:
        return [entry[0] for entry in self.log]


@dataclass
class Callee:
    """A tunnel that came in, and the application behind it once it is accepted."""

    tunnel: IncomingTunnel
    lab: Lab
    counts: Counts = field(default_factory=Counts)
    ends: list[ConnectionFailed | None] = field(default_factory=list)
    cancelled: bool = False

    def __post_init__(self) -> None:
        self.tunnel.cancelled = self._cancel

    def _cancel(self) -> None:
        self.cancelled = True

    def accept(self) -> socket.socket:
        """Returns the application's own socket."""
        app, own = self.lab.pair()
        self.tunnel.accept(OK_BLOCK, app, self.counts, self.ends.append)
        return own


class Lab:
    """One engine, its sessions, and what is to be closed at the end."""

    def __init__(self, contexts: Contexts, bugs: Bugs) -> None:
        self.contexts = contexts
        self.clock = Clock()
        self.engine = Engine(bugs, self.clock)
        self.ledger = Ledger()
        self.peers: list[H2Peer] = []
        self.callees: list[Callee] = []
        self.session_ends: list[tuple[Session, ConnectionFailed | None]] = []
        self._socks: list[socket.socket] = []

    def limits(self, **changes: Any) -> None:
        self.ledger = Ledger(Limits(**changes))

    def pair(self) -> tuple[socket.socket, socket.socket]:
        ends = stream_pair()
        self._socks.extend(ends)
        return ends

    def _links(self) -> tuple[TlsLink, TlsLink]:
        links = link_pair(self.contexts)
        self._socks.extend(link.sock for link in links)
        return links

    def client(self, link: TlsLink) -> Session:
        return Session(self.engine, link, self.ledger, lambda *end: self.session_ends.append(end))

    def server(self, link: TlsLink) -> Session:
        def asked(tunnel: IncomingTunnel) -> None:
            self.callees.append(Callee(tunnel, self))

        return Session(self.engine, link, self.ledger, lambda *end: self.session_ends.append(end), asked)

    def sessions(self) -> tuple[Session, Session]:
        """Two of ours back to back: client, server."""
        near, far = self._links()
        return self.client(near), self.server(far)

    def client_to_h2(self) -> tuple[Session, H2Peer]:
        near, far = self._links()
        peer = H2Peer(far, client=False)
        self.peers.append(peer)
        return self.client(near), peer

    def server_to_h2(self) -> tuple[Session, H2Peer]:
        near, far = self._links()
        peer = H2Peer(near, client=True)
        self.peers.append(peer)
        return self.server(far), peer

    def asked(self) -> tuple[Session, H2Peer, Callee]:
        """A server of ours that `h2` has asked for a tunnel, stream 1."""
        server, peer = self.server_to_h2()
        self.go()
        peer.conn.send_headers(1, CONNECT)
        self.go(until=lambda: self.callees)
        return server, peer, self.callees[0]

    def answered(self) -> tuple[Session, H2Peer, Caller]:
        """A client of ours whose call `h2` has answered with 200, stream 1."""
        client, peer = self.client_to_h2()
        caller = self.call(client)
        self.go(until=lambda: peer.of(h2.events.RequestReceived))
        peer.conn.send_headers(1, OK)
        self.go(until=lambda: caller.log)
        return client, peer, caller

    def call(self, session: Session, answer_seconds: float = 5.0) -> Caller:
        """An application that calls; its socket is `caller.sock`."""
        app, own = self.pair()
        caller = Caller(own)
        session.open(CONNECT_BLOCK, app, caller.counts, caller, answer_seconds)
        return caller

    def joined(self, session: Session) -> tuple[Caller, Callee, socket.socket]:
        """A call that has been accepted: caller, callee, the callee's own socket."""
        caller, before = self.call(session), len(self.callees)
        self.go(until=lambda: len(self.callees) > before)
        callee = self.callees[-1]
        own = callee.accept()
        self.go(until=lambda: caller.log)
        assert caller.words == ["established"]
        return caller, callee, own

    def go(self, until: Callable[[], object] | None = None) -> None:
        """Rounds of everything until `until` holds; without it, until nothing moves any more."""
        quiet = 0
        for _ in range(ROUNDS):
            if until is not None and until():
                return
            busy = self.engine.round(0 if not quiet else 0.001)
            for peer in self.peers:
                busy = peer.pump() or busy
            quiet = 0 if busy else quiet + 1
            if until is None and quiet > 1:
                return
        raise AssertionError("it did not come to that")

    def receive(self, sock: socket.socket, count: int) -> bytes:
        """Read so many bytes, or to the end."""
        parts: list[bytes] = []

        def have() -> bool:
            part = read(sock)
            if part:
                parts.append(part)
            return sum(map(len, parts)) >= count or part == b""

        self.go(until=have)
        return b"".join(parts)

    def send(self, sock: socket.socket, data: bytes) -> None:
        """Write it all, driving whatever has to move for it."""
        view = memoryview(data)

        def done() -> bool:
            nonlocal view
            with contextlib.suppress(BlockingIOError):
                view = view[sock.send(view) :]
            return not view

        if view:
            self.go(until=done)

    def fill(self, sock: socket.socket) -> int:
        """Write until nothing more goes; returns how much went."""
        total, data = 0, bytes(1 << 18)
        while True:
            try:
                total += sock.send(data)
            except BlockingIOError:
                self.go()
                try:
                    total += sock.send(data)
                except BlockingIOError:
                    return total

    def close(self) -> None:
        for sock in self._socks:
            sock.close()
        self.engine.close()
