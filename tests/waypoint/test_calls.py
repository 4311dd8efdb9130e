"""Calls of gRPC that a waypoint makes itself: with servers that are played, and with one of grpcio's."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random
from types import SimpleNamespace

import grpc
import pytest

from tests.builders import world_of
from tests.waypoint.mesh import ME, SERVICE
from tests.waypoint.rig import Clock, Server, Wire
from ztunnel.http1.head import Fields
from ztunnel.l7.reply import CONNECT_FAILED, TERMINATED
from ztunnel.waypoint.calls import MOST, MOST_BYTES, Called, ServiceCalls
from ztunnel.waypoint.client import Client
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.rules.aim import Terms
from ztunnel.waypoint.upstream.upstream2 import Http2Client

CALLED = Called(SERVICE.hostname, 9000, "shop", b"/a.B/C", 0.25)
OK: Fields = ((b"grpc-status", b"0"),)


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


class Bench:
    """Calls, whose servers are played by `connects`."""

    def __init__(self, answer=None) -> None:
        self.clock = Clock()
        self.answer = answer
        self.servers: list[Server] = []
        self.terms: list[tuple[Terms, int]] = []
        self.failures = 0
        self.told: list[tuple[bytes | None, str]] = []
        client = Client(self.clock, lambda *asked: self.connect(*asked), Random(1))
        self.calls = ServiceCalls(client, lambda: (world_of(ME, SERVICE), ME))

    def connect(self, exchange: Exchange, terms: Terms, version: int) -> None:
        self.terms.append((terms, version))
        if self.failures:
            self.failures -= 1
            exchange.unreachable(CONNECT_FAILED, "refused", unsent=True)
            return
        server = Server(self.answer, exchange=exchange)
        self.servers.append(server)
        exchange.connected(server)

    def call(self, called: Called = CALLED, message: bytes = b"hello") -> Bench:
        self.calls.call(called, message, lambda *said: self.told.append(said))
        return self


def answers(*said: bytes, fields: Fields = (), trailers: Fields = OK, status: bytes = b"200"):
    def answer(server: Server) -> None:
        server.respond((b"content-type", b"application/grpc"), *fields, status=status)
        for each in said:
            server.say(each)
        server.end(trailers)

    return answer


def test_a_message_goes_there_and_one_comes_back() -> None:
    bench = Bench(answers(framed(b"world"))).call()
    assert bench.told == [(b"world", "")]
    (server,) = bench.servers
    assert bytes(server.body) == framed(b"hello")
    request = server.request
    assert request is not None
    assert (request.method, request.path, request.authority) == (
        b"POST",
        b"/a.B/C",
        b"web.shop.svc.cluster.local:9000",
    )
    assert dict(request.fields) == {
        b"te": b"trailers", b"content-type": b"application/grpc", b"grpc-timeout": b"250m",
    }  # fmt: skip
    ((terms, version),) = bench.terms
    assert (terms.called.port, version, terms.version) == (9000, 2, 2)
    assert bench.calls.live == 0


@pytest.mark.parametrize("at", range(1, len(framed(b"world"))))
def test_an_answer_may_come_in_parts(at: int) -> None:
    whole = framed(b"world")
    assert Bench(answers(whole[:at], whole[at:])).call().told == [(b"world", "")]


def test_an_answer_may_be_empty() -> None:
    assert Bench(answers(framed(b""))).call(message=b"").told == [(b"", "")]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (answers(trailers=((b"grpc-status", b"14"), (b"grpc-message", b"away"))), "gRPC status 14: away"),
        (answers(framed(b"x"), trailers=()), "gRPC status missing: no reason"),
        (answers(status=b"503"), "HTTP status 503"),
        (answers(), "an answer without a message"),
        (answers(b"\1" + framed(b"x")[1:]), "or with one that is compressed"),
        (answers(framed(b"x") + b"y"), "not one message"),
        (answers(framed(b"x")[:-1]), "not one message"),
        (answers(framed(b"x" * MOST_BYTES)), "more than 65536 bytes"),
        (answers(*[b"x" * 40_000] * 100), "more than 65536 bytes"),
        (lambda server: server.respond((b"grpc-status", b"7"), end=True), "gRPC status 7: no reason"),
    ],
)
def test_what_is_no_answer_says_why(answer, why: str) -> None:
    bench = Bench(answer).call()
    ((message, said),) = bench.told
    assert message is None
    assert why in said
    assert bench.calls.live == 0


def test_it_takes_no_longer_than_it_may() -> None:
    bench = Bench().call()
    bench.clock.sleep(0.2)
    assert bench.told == []
    bench.clock.sleep(0.1)
    ((message, why),) = bench.told
    assert message is None
    assert "upstream_response_timeout" in why
    assert bench.servers[0].cancelled
    assert bench.calls.live == 0


def test_what_no_server_has_seen_is_tried_again_at_once() -> None:
    bench = Bench(answers(framed(b"x")))
    bench.failures = 2
    assert bench.call().told == [(b"x", "")]
    bench.failures = 3
    bench.call()
    assert "refused" in bench.told[1][1]
    assert bench.calls.live == 0


def test_all_calls_of_a_port_are_in_the_same_terms() -> None:
    """So that what was found out of its endpoints is known to the next one."""
    bench = Bench(answers(framed(b"x"))).call().call().call(CALLED._replace(port=9001))
    one, again, other = (terms for terms, _ in bench.terms)
    assert one is again
    assert one is not other
    assert other.called.port == 9001


def test_nobody_is_asked_who_is_not_known() -> None:
    bench = Bench().call(CALLED._replace(host="nowhere.shop"))
    assert bench.told == [(None, "nowhere.shop is no service of the mesh")]
    assert bench.terms == []


def closes(server: Server) -> None:
    """As a server does that has found the connection idle."""
    assert server.exchange is not None
    server.exchange.failed(TERMINATED, "closed")


def breaks_off(server: Server) -> None:
    server.respond((b"content-type", b"application/grpc"))
    assert server.exchange is not None
    server.exchange.failed(TERMINATED, "closed")


@pytest.mark.parametrize(
    ("answer", "lost"),
    [(closes, True), (breaks_off, False), (answers(status=b"503"), False), (answers(framed(b"x")), False)],
)
def test_what_was_closed_before_anything_was_said_is_told_apart(answer, lost: bool) -> None:
    bench = Bench(answer)
    call = bench.calls.call(CALLED, b"hello", lambda *said: None)
    assert call is not None
    assert call.lost is lost
    bench = Bench(answer)
    bench.failures = 3  # nobody could be reached
    call = bench.calls.call(CALLED, b"hello", lambda *said: None)
    assert call is not None
    assert not call.lost


def test_there_are_only_so_many_at_once() -> None:
    bench = Bench()
    for _ in range(MOST):
        bench.call()
    assert bench.told == []
    bench.call()
    assert bench.told == [(None, f"{MOST} calls are under way already")]
    bench.clock.sleep(1)
    assert (bench.calls.live, len(bench.told)) == (0, MOST + 1)


def test_a_server_of_grpcio_reads_and_answers_it() -> None:
    def reply(request: bytes, context: grpc.ServicerContext) -> bytes:
        if request == b"bad":
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")
        return request * 1000

    handler = grpc.method_handlers_generic_handler("a.B", {"C": grpc.unary_unary_rpc_method_handler(reply)})
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with socket.create_connection(("127.0.0.1", port)) as sock:
                told = _over(sock, b"hello", b"bad", b"again")
        finally:
            server.stop(None).wait()
    assert told == [(b"hello" * 1000, ""), (None, "gRPC status 7: not you"), (b"again" * 1000, "")]


def _over(sock: socket.socket, *messages: bytes) -> list[tuple[bytes | None, str]]:
    """What is told of calls with these messages, one after the other, over a connection."""
    bench, wire = Bench(), Wire()
    owner = SimpleNamespace(waits_for=lambda _: False, room=lambda _: None, left=lambda _: None)
    connection = Http2Client(owner, bench.clock, wire, "key", "server")  # type: ignore[arg-type]
    wire.receiver = connection
    bench.connect = lambda exchange, *_: connection.carry(exchange)  # type: ignore[method-assign]
    sock.settimeout(5)
    for number, message in enumerate(messages):
        bench.clock.next_round(partial(bench.call, CALLED._replace(seconds=60.0), message))
        while len(bench.told) <= number:
            bench.clock.rounds()
            sock.sendall(wire.said())
            if len(bench.told) <= number:
                wire.send(sock.recv(65536))
    return bench.told
