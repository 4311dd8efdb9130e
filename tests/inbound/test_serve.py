"""From an accepted connection on 15008 to a session: who may, who may not, and what is left."""

from __future__ import annotations

import errno
import gc
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from ipaddress import IPv4Address
from random import Random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.builders import identity, workload
from tests.flow.driving import Bugs, Clock
from tests.flow.driving import drive as rounds
from tests.identity.builders import PEM, Authority, Leaf, pem_of
from tests.inbound.parts import Desk, Pod, Signer, Sockets, now, peer_of
from ztunnel.errors import ConnectionFailed, Drained, NoCertificate
from ztunnel.flow.drive import drive
from ztunnel.flow.engine import Engine
from ztunnel.flow.share import Shares
from ztunnel.hbone.accept import FIRST_BYTE_SECONDS, Handshake
from ztunnel.hbone.carry import Session
from ztunnel.hbone.ledger import Ledger
from ztunnel.hbone.link import TlsLink, link
from ztunnel.http2.frame import push_ping
from ztunnel.identity.rotate import Certificates
from ztunnel.identity.secure import client_context
from ztunnel.inbound.serve import Handshakes
from ztunnel.model.address import IPAddress
from ztunnel.model.identity import SpiffeId

pytestmark = [pytest.mark.root, pytest.mark.timeout(20)]

POD = workload("pod").at("127.0.0.1")
CALLER = identity("default/caller")


async def contain(part: Callable[[], Awaitable[None]]) -> None:
    await part()


class Node:
    """Handshakes with all that they stand on; the engine runs in Trio."""

    def __init__(self, sockets: Sockets, signer: Signer, clock: Callable[[], float] = time.monotonic) -> None:
        self.bugs = Bugs()
        self.engine = Engine(self.bugs, clock)
        self.desk = Desk(self.engine, POD)
        self.ledger = Ledger()
        self.signer = signer
        self.certificates = Certificates(signer, now, Random(1))
        self.handshakes = Handshakes(self.desk.inbound, self.ledger, self.certificates, now)
        self.sockets = sockets
        self.listener = sockets.listen()
        self.pod: Pod = sockets.pod(POD)
        self.ended: list[ConnectionFailed | None] = []

    def close(self) -> None:
        """For a node that has not been running."""
        self.handshakes.computers.close()
        rounds(self.engine)
        self.engine.close()
        assert not self.bugs

    @asynccontextmanager
    async def running(self) -> AsyncIterator[trio.Nursery]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drive, self.engine)
            nursery.start_soon(self.certificates.run)
            nursery.start_soon(self.handshakes.run, contain)
            yield nursery
            self.handshakes.abort(POD.uid, Drained("the test is over"))
            with trio.move_on_after(1.0):
                while self.ledger.sessions:  # noqa: ASYNC110 (the engine knows no Trio events)
                    await trio.sleep(0.005)
            nursery.cancel_scope.cancel()
        self.engine.close()
        assert not self.bugs

    def call(self, pod: str = "") -> socket.socket:
        """A peer's socket; the other end was accepted, for that pod."""
        client, accepted = self.sockets.call(self.listener)
        if pod:
            called = self.sockets.pod(workload(pod).at("127.0.0.1"))
            self.handshakes.accepted(called, accepted, peer_of(accepted))
            return client
        self.handshakes.accepted(self.pod, accepted, peer_of(accepted))
        return client

    def context(self, who: SpiffeId = CALLER, root: Authority | None = None) -> ssl.SSLContext:
        return self.present(self.signer.leaf(who), root or self.signer.root)

    def present(self, leaf: Leaf, signer: Authority, *more: Authority) -> ssl.SSLContext:
        """A client that presents this leaf, and these certificates behind it."""
        chain = leaf.signed_by(signer).public_bytes(PEM).decode() + "".join(each.pem for each in more)
        return client_context(pem_of(leaf.key), chain, self.signer.root.pem)

    async def shake(self, context: ssl.SSLContext | None = None) -> TlsLink:
        return await link(self.call(), context or self.context(), server_side=False)

    async def begin(self) -> Session:
        made = await self.shake()
        return Session(self.engine, made, self.ledger, lambda _, error: self.ended.append(error))

    async def session(self) -> Session:
        session = await self.begin()
        await self.until(lambda: self.handshakes.sessions(POD.uid) > 0)
        return session

    async def until(self, holds: Callable[[], object]) -> None:
        with trio.fail_after(5.0):
            while not holds():  # noqa: ASYNC110 (the engine knows no Trio events)
                await trio.sleep(0.005)

    async def refused(self, text: str) -> None:
        await self.until(lambda: self.handshakes.failed_total)
        assert text in self.desk.lines[0]
        assert self.handshakes.sessions(POD.uid) == 0


@dataclass
class Hand:
    """A node whose engine is driven by hand."""

    node: Node
    clock: Clock

    def move(self, seconds: float) -> None:
        rounds(self.node.engine)
        self.clock.move(seconds)
        rounds(self.node.engine)


@pytest.fixture
def hand(sockets: Sockets, signer: Signer) -> Iterator[Hand]:
    clock = Clock()
    made = Hand(Node(sockets, signer, clock), clock)
    yield made
    made.node.close()


def hello_of(context: ssl.SSLContext) -> tuple[bytes, ssl.SSLObject]:
    """What a client says first, and its state."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read(), tls


def _answered(client: socket.socket) -> bool:
    try:
        return bool(client.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


@pytest.fixture
def node(sockets: Sockets, signer: Signer) -> Node:
    signer.error = None
    return Node(sockets, signer)


async def test_a_peer_with_a_certificate_of_the_mesh_gets_a_session(node: Node) -> None:
    async with node.running():
        session = await node.session()
        await node.until(session.can_take)
        assert node.handshakes.failed_total == 0
        session.abort(Drained("enough"))
        await node.until(lambda: not node.handshakes.sessions(POD.uid))
    assert node.ledger.sessions == 0


async def test_a_peer_without_a_certificate_is_refused(node: Node) -> None:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
    bare.set_alpn_protocols(["h2"])
    async with node.running():
        await node.shake(bare)
        await node.refused("TLS handshake")


async def test_a_peer_of_another_root_is_refused(node: Node) -> None:
    async with node.running():
        await node.shake(node.context(root=Authority.root("elsewhere")))
        await node.refused("TLS handshake")


async def test_a_peer_of_another_trust_domain_is_refused(node: Node) -> None:
    async with node.running():
        await node.shake(node.context(SpiffeId("example.org", "default", "caller")))
        await node.refused("example.org")


async def test_a_peer_that_does_not_speak_http2_is_refused(node: Node) -> None:
    context = node.context()
    context.set_alpn_protocols(["http/1.1"])
    async with node.running():
        with pytest.raises(ConnectionFailed):
            await node.shake(context)
        await node.refused("h2")


@pytest.mark.parametrize("garbage", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(99)])
async def test_a_peer_that_sends_garbage_and_goes_is_refused(node: Node, garbage: bytes) -> None:
    async with node.running():
        with node.call() as client:
            client.send(garbage)
        await node.until(lambda: node.handshakes.failed_total)
        assert node.ledger.sessions == 0


def test_a_peer_that_says_nothing_is_closed_after_some_seconds(hand: Hand) -> None:
    client = hand.node.call()
    hand.move(FIRST_BYTE_SECONDS - 0.1)
    assert hand.node.handshakes.failed_total == 0
    hand.move(0.2)
    assert "said nothing" in hand.node.desk.lines[0]
    assert client.recv(1) == b""
    assert len(hand.node.handshakes._places) == 0


async def test_without_a_certificate_of_our_own_nobody_is_served(node: Node) -> None:
    node.signer.error = NoCertificate("the authority is away")
    async with node.running():
        client = node.call()
        client.send(b"x")
        await node.refused("the authority is away")
        assert client.recv(1) == b""


async def test_a_workload_that_left_between_accept_and_handshake_is_not_served(node: Node) -> None:
    client = node.call()
    client.send(b"x")
    node.desk.publish(removed=[POD.uid])
    async with node.running():
        await node.refused("the workload has left the mesh")


async def test_a_pod_that_was_removed_during_the_handshake_is_drained_at_once(node: Node) -> None:
    async with node.running():
        node.pod.serving = False
        session = await node.begin()
        await node.until(lambda: node.ended and not node.handshakes.sessions(POD.uid))
        assert node.handshakes.failed_total == 0
        assert not session.can_take()


async def test_sessions_are_drained_when_the_pod_leaves(node: Node) -> None:
    async with node.running():
        session = await node.session()
        await node.until(session.can_take)
        node.handshakes.drain("another")
        assert session.can_take()
        node.handshakes.drain(POD.uid)
        node.handshakes.drain(POD.uid)
        await node.until(lambda: not node.handshakes.sessions(POD.uid))
        assert not session.can_take()


def test_too_many_silent_connections_of_one_peer_keep_only_itself_waiting(hand: Hand) -> None:
    node = hand.node
    places = node.handshakes._places = Shares(20)
    clients = [node.call() for _ in range(23)]
    assert node.handshakes.failed_total == 3
    assert [client.recv(1) for client in clients[-3:]] == [b""] * 3
    assert "most of them from this address" in node.desk.lines[0]
    honest = node.call(pod="another")
    assert node.handshakes.failed_total == 4
    assert clients[19].recv(1) == b""
    with pytest.raises(BlockingIOError):
        honest.recv(1)
    hand.move(FIRST_BYTE_SECONDS + 1)
    assert node.handshakes.failed_total == 24
    assert "said nothing" in node.desk.lines[-1]
    assert len(places) == 0


async def test_handshakes_that_are_over_are_freed_at_once_and_not_by_the_garbage_collector(
    node: Node,
) -> None:
    """With each go 30 KiB of TLS."""
    gc.collect()
    gc.disable()
    try:
        async with node.running():
            clients = [node.call() for _ in range(3)]
            clients[0].send(b"garbage, and more of it")
            hello, _ = hello_of(node.context())
            for client in clients[1:]:
                client.send(hello)
            await node.until(lambda: all(_answered(client) for client in clients[1:]))
            clients[1].close()
            for arrival in tuple(node.handshakes._arrivals):
                arrival.give_way()
            del arrival
            await node.until(lambda: node.handshakes.failed_total == 3)
            # What a thread computes for one of them holds it for a moment longer.
            await node.until(lambda: not any(isinstance(each, Handshake) for each in gc.get_objects()))
    finally:
        gc.enable()


def test_handshakes_of_one_address_have_a_rate(hand: Hand) -> None:
    bucket = hand.node.handshakes._sources.of(IPv4Address("127.0.0.9"))
    bucket.take(2000, hand.clock())
    assert hand.node.call().recv(1) == b""
    assert "too many handshakes from this address" in hand.node.desk.lines[0]
    bucket.give(2000)
    client = hand.node.call()
    with pytest.raises(BlockingIOError):
        client.recv(1)


@pytest.mark.parametrize("refuses", [False, True])
def test_who_has_too_many_is_turned_away_by_the_kernel_until_one_is_taken_again(hand: Hand, refuses) -> None:
    told: list[tuple[IPAddress, float]] = []

    def turn_away(source: IPAddress, seconds: float) -> None:
        told.append((source, seconds))
        if refuses:
            raise OSError(errno.ENOMEM, "no memory")

    handshakes = hand.node.handshakes
    handshakes._inbound = replace(handshakes._inbound, turn_away=turn_away)
    source = IPv4Address("127.0.0.9")
    assert hand.node.call()
    assert told == []
    handshakes._sources.of(source).take(2000, hand.clock())  # in the deepest debt
    assert hand.node.call().recv(1) == b""
    assert told == [(source, pytest.approx(251 / 50))]
    hand.move(told[0][1] + 0.001)
    with pytest.raises(BlockingIOError):
        hand.node.call().recv(1)
    assert len(told) == 1


async def test_a_handshake_that_fails_costs_more_than_one_that_says_nothing(node: Node) -> None:
    bucket, clock = node.handshakes._sources.of(IPv4Address("127.0.0.9")), node.engine.clock
    bucket.take(500, clock())  # so that it is not full, and what comes by the second is seen
    costs = []
    async with node.running():
        for number, said in enumerate((b"", b"garbage, and more of it"), 1):
            begun = clock()
            before = bucket.level(begun)
            with node.call() as client:
                client.send(said)
                if not said:
                    client.close()
                await node.until(lambda number=number: node.handshakes.failed_total == number)
            now = clock()
            costs.append(before + 50 * (now - begun) - bucket.level(now))
    assert costs == pytest.approx([1, 8], abs=0.01)


async def test_handshakes_of_many_are_computed_side_by_side_and_none_waits_for_the_greedy(node: Node) -> None:
    """A newcomer to another pod stands before the rest of those who came before it."""
    async with node.running():
        greedy = [node.call() for _ in range(200)]
        hello, _ = hello_of(node.context())
        for client in greedy:
            client.send(hello)
        before = time.monotonic()
        client, accepted = node.sockets.call(node.listener, "127.0.0.10")
        called = node.sockets.pod(workload("another").at("127.0.0.1"))
        node.desk.publish(workload("another").at("127.0.0.1"))
        node.certificates.want(workload("another").at("127.0.0.1").identity)
        await node.until(lambda: node.certificates.current(workload("another").at("127.0.0.1").identity))
        node.handshakes.accepted(called, accepted, peer_of(accepted))
        await link(client, node.context(), server_side=False)
        newcomer = time.monotonic() - before
        await node.until(lambda: all(_answered(each) for each in greedy))
        assert newcomer < time.monotonic() - before
        for each in greedy:
            each.close()
        await node.until(lambda: node.handshakes.failed_total == 200)
        node.handshakes.abort("another", Drained("the test is over"))


async def test_who_was_cut_off_finds_its_points_spent_in_the_next_session(node: Node) -> None:
    async with node.running():
        for _ in range(2):
            session = await node.session()
            session.push(push_ping(bytes(8)) * 500)
            await node.until(lambda: not node.handshakes.sessions(POD.uid))
        assert node.ledger.calmed == 2
        session = await node.session()
        session.push(push_ping(bytes(8)) * 40)
        await node.until(lambda: not node.handshakes.sessions(POD.uid))
        assert node.ledger.calmed == 3
        bucket = node.handshakes._sources.of(IPv4Address("127.0.0.9"))
        assert bucket.level(node.engine.clock()) < 1024 - 2 * 50


HOUR = timedelta(hours=1)


@pytest.mark.parametrize("what", ["expired", "not yet", "foreign root", "no intermediate", "foreign issuer"])
async def test_why_a_certificate_was_refused_is_in_the_log(node: Node, what: str) -> None:
    root, foreign, leaf = node.signer.root, Authority.root("elsewhere"), node.signer.leaf(CALLER)
    child = root.child()
    context, reason = {
        "expired": (node.present(leaf.but(begin=now() - 2 * HOUR, end=now() - HOUR), root), "has expired"),
        "not yet": (node.present(leaf.but(begin=now() + HOUR, end=now() + 2 * HOUR), root), "not yet valid"),
        "foreign root": (node.present(leaf, foreign, foreign), "its root is none of ours"),
        "no intermediate": (node.present(leaf, child), "presented without its intermediate"),
        "foreign issuer": (node.present(leaf, foreign), "its root is none of ours"),
    }[what]
    async with node.running():
        await node.shake(context)
        await node.refused("the peer's certificate was refused")
        assert reason in node.desk.lines[0]


async def test_an_intermediate_that_is_presented_is_used(node: Node) -> None:
    child = node.signer.root.child()
    async with node.running():
        await node.shake(node.present(node.signer.leaf(CALLER), child, child))
        await node.until(lambda: node.handshakes.sessions(POD.uid))


async def test_a_process_that_stops_closes_whoever_waits(node: Node, autojump_clock: MockClock) -> None:
    before = len(os.listdir("/proc/self/fd"))
    clients = [node.call() for _ in range(5)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.handshakes.run, contain)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [client.recv(1) for client in clients] == [b""] * 5
    late = node.call()
    assert late.recv(1) == b""
    for client in (*clients, late):
        client.close()
    assert len(os.listdir("/proc/self/fd")) == before
    node.engine.close()


@pytest.mark.parametrize("fetches", [False, True])
async def test_the_end_closes_who_waits_for_a_certificate_or_shakes_hands(node: Node, fetches: bool) -> None:
    """Without a certificate the peer's first bytes are read, and it waits; with one it is answered."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive, node.engine)
        nursery.start_soon(node.handshakes.run, contain)
        if fetches:
            nursery.start_soon(node.certificates.run)
        client = node.call()
        hello, _ = hello_of(node.context())
        client.send(hello)
        await node.until(lambda: _answered(client) if fetches else not client_has_unread(node))
        nursery.cancel_scope.cancel()
    while client.recv(1 << 16):
        pass
    assert node.handshakes.sessions(POD.uid) == 0
    assert node.desk.lines == []
    node.engine.close()


def client_has_unread(node: Node) -> bool:
    """Whether the first bytes of somebody have not been read."""
    return not all(arrival.handshake._words for arrival in node.handshakes._arrivals)


def test_a_socket_that_is_gone_is_nobodys(hand: Hand) -> None:
    _, accepted = hand.node.sockets.call(hand.node.listener)
    peer = peer_of(accepted)
    accepted.close()
    hand.node.handshakes.accepted(hand.node.pod, accepted, peer)
    hand.move(FIRST_BYTE_SECONDS + 1)
    assert hand.node.desk.lines == []
