"""Frames through TLS, in bounded memory."""

from __future__ import annotations

import random
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from select import EPOLLIN
from typing import cast

import pytest

from tests.hbone.peers import CONNECT, H2Peer, Lab, link_pair
from tests.http2.recording import pull_frames
from tests.kernel.lab import unique, wait_until
from ztunnel.errors import Unreachable
from ztunnel.hbone.bulk import MOST_BYTES
from ztunnel.hbone.carry import Session
from ztunnel.http2.frame import HEADER, Frame, push_frame, push_ping
from ztunnel.kernel import named
from ztunnel.kernel.links import change
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.topology import Up

GARBAGE = b"\x17\x03\x03\x00\x20" + bytes(32)
"""A record that nobody has encrypted."""


def test_a_peer_that_never_reads_does_not_make_us_hold_more_than_a_bound(lab: Lab) -> None:
    server, peer = lab.server_to_h2()
    lab.go()
    peer.reads = False
    peer.conn.clear_outbound_data_buffer()
    peer.link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    server.pipe._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for _ in range(100):
        if not server.alive:
            break
        peer.write(push_ping(bytes(8)) * 100)
        lab.clock.move(5)
        lab.engine.round(0)
        assert len(server.pipe._control) <= 64 * 1024
    assert not server.alive


def test_garbage_instead_of_tls_ends_the_session(lab: Lab) -> None:
    server, peer, callee = lab.asked()
    callee.accept()
    peer.link.sock.send(GARBAGE)
    with pytest.raises(ssl.SSLError, match="alert bad record mac"):  # the peer is told why
        lab.go()
    assert not server.alive
    assert isinstance(callee.ends[0], Unreachable)


def test_what_came_before_garbage_is_delivered(lab: Lab) -> None:
    _server, peer, callee = lab.asked()
    app = callee.accept()
    lab.go()
    peer.link.tls.write(HEADER.pack(5 << 8, 0, 1) + b"hello")
    peer.link.sock.send(peer.link.outgoing.read() + GARBAGE)
    peer.reads = False
    assert lab.receive(app, 5) == b"hello"
    lab.go()
    assert isinstance(callee.ends[0], Unreachable)


class Watching:
    """The session's socket, with an eye on what is sent by which call.

    Attributes:
        most_bytes: it takes no more at once.
    """

    def __init__(self, sock: socket.socket, most_bytes: int = 1 << 30) -> None:
        self.ciphers: list[bytes] = []
        self.most_bytes = most_bytes
        self._sock = sock

    def __getattr__(self, name: str) -> object:
        return getattr(self._sock, name)

    def send(self, cipher: bytes | memoryview) -> int:
        return self.sendmsg([bytes(cipher)])

    def sendmsg(self, ciphers: list[bytes]) -> int:
        cipher = b"".join(ciphers)
        self.ciphers.append(cipher)
        return self._sock.send(cipher[: self.most_bytes])

    def getsockopt(self, *option: int) -> int:
        return 1448 if option == (socket.IPPROTO_TCP, socket.TCP_MAXSEG) else self._sock.getsockopt(*option)

    @property
    def sizes(self) -> list[int]:
        return [len(cipher) for cipher in self.ciphers]


def bulk(lab: Lab, most_bytes: int) -> tuple[Session, Watching, socket.socket, bytes]:
    """A session that has bulk to send in this round, of whose socket so much is taken at once: the server,
    the client's socket, the callee's own socket, and the bytes."""
    lab.limits(accept_streams=4)
    client, server = lab.sessions()
    _caller, callee, own = lab.joined(client)
    client.pipe._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    lab.go()
    watching = Watching(client.pipe._sock, most_bytes)
    client.pipe._sock = cast("socket.socket", watching)
    sent = random.randbytes(150_000)
    client.push(push_frame(Frame.DATA, 0, callee.tunnel.stream_id, sent))
    return server, watching, own, sent


def test_bulk_leaves_in_one_piece(lab: Lab) -> None:
    """The peer is woken up once for what one read has brought."""
    _, watching, own, sent = bulk(lab, 1 << 30)
    lab.engine.round(0.001)
    assert watching.sizes == [150_000 + 9 + 10 * 22]
    assert lab.receive(own, len(sent)) == sent


def test_bulk_leaves_in_whole_pieces_of_the_kernel(lab: Lab) -> None:
    """Of its path's segments; the last begins no third piece."""
    lab.limits(accept_streams=4)
    client, _server = lab.sessions()
    client.pipe._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    watching = Watching(client.pipe._sock, 1 << 30)
    client.pipe._sock = cast("socket.socket", watching)
    caller, _callee, own = lab.joined(client)
    watching.ciphers.clear()
    caller.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    sent = caller.sock.send(bytes(1 << 19))
    assert sent > 130_320
    lab.receive(own, sent)
    assert max(watching.sizes) == 2 * 45 * 1448


def test_a_connection_that_is_gone_asks_for_what_a_block_takes(lab: Lab) -> None:
    client, _ = lab.sessions()
    client.abort(Unreachable("gone"))
    client.pipe._sock.close()
    assert client.pipe.bulk_bytes() == MOST_BYTES


def test_bulk_is_passed_on_in_one_piece(lab: Lab) -> None:
    """And so is the application."""
    server, watching, own, sent = bulk(lab, 0)
    lab.engine.round(0.001)
    cipher, watching.ciphers = watching.ciphers[0], []
    received: list[int] = []
    take = server.received

    class Ends:
        """The session, with an eye on what it gets."""

        def __getattr__(self, name: str) -> object:
            return getattr(server, name)

        def received(self, untrusted: memoryview) -> None:
            received.append(len(untrusted))
            take(untrusted)

    class All:
        """The session's socket, which has all that was sent."""

        def __getattr__(self, name: str) -> object:
            return getattr(sock, name)

        def recv_into(self, view: memoryview) -> int:
            view[: len(cipher)] = cipher
            return len(cipher)

    sock, server.pipe._sock = server.pipe._sock, cast("socket.socket", All())
    server.pipe._ends = cast("Session", Ends())
    server.pipe._ready(EPOLLIN)
    server.pipe._sock = sock
    assert received == [150_000 + 9]
    assert lab.receive(own, len(sent)) == sent


@pytest.mark.parametrize("most_bytes", [1, 16_000, 65_000, 66_000, 131_000, 150_000])
def test_what_a_socket_does_not_take_of_bulk_follows_in_order(lab: Lab, most_bytes: int) -> None:
    _, watching, own, sent = bulk(lab, most_bytes)
    lab.engine.round(0.001)
    watching.most_bytes = 100_000
    assert lab.receive(own, len(sent)) == sent
    assert watching.sizes[:2] == [150_229, 150_229 - most_bytes]


def test_a_frame_that_never_comes_to_its_end_is_not_held(lab: Lab) -> None:
    _server, peer, callee = lab.asked()
    app = callee.accept()
    peer.write(HEADER.pack(60_000 << 8, 0, 1) + b"abc")
    assert lab.receive(app, 3) == b"abc"
    assert lab.ledger.buffered_bytes == 0


def test_what_came_behind_the_handshake_is_read(lab: Lab) -> None:
    near, far = lab._links()
    peer = H2Peer(near, client=True)
    lab.peers.append(peer)
    peer.conn.send_headers(1, CONNECT)
    peer.pump()
    far.sock.setblocking(True)
    far.incoming.write(far.sock.recv(1 << 16))
    far.sock.setblocking(False)
    lab.server(far)
    lab.go(until=lambda: lab.callees)


def test_frames_of_one_round_share_a_record(lab: Lab) -> None:
    client, _ = lab.sessions()
    calls = [lab.joined(client) for _ in range(10)]
    lab.go()
    for caller, _, _ in calls:
        caller.sock.send(b"hello")
    watching = Watching(client.pipe._sock)
    client.pipe._sock = cast("socket.socket", watching)
    lab.engine.round(0.001)
    assert watching.sizes == [10 * (9 + 5) + 22]


def test_a_pipe_that_is_closed_says_nothing_more(lab: Lab) -> None:
    client, _ = lab.sessions()
    lab.go()
    client.abort(Unreachable("gone"))
    client.push(push_ping(bytes(8)))
    client.pipe.close(0)
    lab.go()
    assert not client.pipe.open


def test_control_frames_that_waited_are_sent_in_order_when_the_peer_reads_again(lab: Lab) -> None:
    server, peer, callee = lab.asked()
    app = callee.accept()
    lab.go()
    peer.conn.increment_flow_control_window(1 << 30)
    peer.conn.increment_flow_control_window(1 << 30, 1)
    lab.go()
    peer.reads = False
    sent = lab.fill(app)
    assert server.pipe.blocked
    for number in range(20):
        peer.write(push_ping(number.to_bytes(8, "big")))
    lab.go(until=lambda: len(server.pipe._control) == 20 * 17)
    peer.parses, peer.reads, peer.raw = False, True, b""
    lab.go()
    frames = pull_frames(peer.raw)
    pongs = [frame.number for frame in frames if frame.kind is Frame.PING]
    assert pongs == list(range(20))
    assert sum(len(frame.payload) for frame in frames if frame.kind is Frame.DATA) == sent


@pytest.fixture
def place() -> Iterator[NetworkNamespace]:
    path = Path("/run/netns") / unique()
    named.create(path)
    with NetworkNamespace.open(path) as netns:
        change(netns, [Up("lo")])
        yield netns
    named.remove(path)


@pytest.mark.root
@pytest.mark.timeout(60)
def test_a_peer_that_acknowledges_nothing_stalls_until_it_is_there_again(
    lab: Lab, place: NetworkNamespace
) -> None:
    """And then no new tunnel is opened on it."""
    with place.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        near = place.socket(socket.AF_INET, socket.SOCK_STREAM)
        near.setblocking(True)
        near.connect(listener.getsockname())
        listener.setblocking(True)
        far = listener.accept()[0]
    for sock in (near, far):
        sock.setblocking(False)
    links = link_pair(lab.contexts, (near, far))
    session, peer = lab.client(links[0]), H2Peer(links[1], client=False)
    lab.peers.append(peer)
    lab.go()
    assert session.can_take()
    lab.clock.move(5)  # silence alone says nothing
    assert session.can_take()
    filtered(
        place, "add table inet f; add chain inet f in { type filter hook input priority 0; policy drop; }"
    )
    session.push(push_ping(bytes(8)))
    lab.engine.round(0)
    assert session.can_take()
    wait_until(session.pipe.stalls)
    assert not session.can_take()
    filtered(place, "delete table inet f")
    wait_until(lambda: not session.pipe.stalls())
    assert session.can_take()
    for sock in (near, far):
        sock.close()


def filtered(netns: NetworkNamespace, rules: str) -> None:
    with netns.entered():
        subprocess.run(["nft", rules], check=True)
