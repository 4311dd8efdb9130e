"""A server's connection of HTTP/1.1: used again where it may be, and never where the server is not to be
believed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.waypoint.rig import Client, Clock, Rig, Wire
from ztunnel.l7.request import Request
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.upstream.upstream1 import Http1Client


class Pool:
    """Whose connection it is; carries each exchange on the connection that it has."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.wire = Wire()
        self.connection = Http1Client(self, self.clock, self.wire, "10.0.0.9:80")
        self.wire.receiver = self.connection
        self.spares = 0
        self.over = 0
        self.next: Exchange | None = None
        self.rig = Rig()
        self.rig.waits = True

    def spare(self, connection: Http1Client) -> None:
        self.spares += 1
        if self.next is not None:
            self.connection.carry(self.next)

    def gone(self, connection: Http1Client) -> None:
        self.over += 1

    def ask(self, method: bytes = b"GET", fields: list[tuple[bytes, bytes]] | None = None, end: bool = True):
        request = Request(method, b"a", b"/x", list(fields or []))
        request.length = next((int(v) for n, v in request.fields if n == b"content-length"), -1)
        client = Client()
        exchange = Exchange(self.rig.way, client, request)
        exchange.start(end)
        self.connection.carry(exchange)
        return exchange, client


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"


def test_one_request_after_the_other() -> None:
    pool = Pool()
    for _ in range(3):
        exchange, client = pool.ask(fields=[(b"te", b"trailers"), (b"b", b"c")])
        assert pool.wire.said() == b"GET /x HTTP/1.1\r\nhost: a\r\nb: c\r\n\r\n"
        pool.wire.send(OK)
        assert client.said == [("head", 200, False), ("body", b"abc"), ("end", ())]
        assert exchange.over
        assert pool.wire.took == pool.wire.given
    assert pool.spares == 3
    assert pool.over == 0
    assert pool.connection.reused


@given(st.lists(st.integers(0, len(OK) * 2)))
def test_any_split_of_the_answers_is_the_same(cuts: list[int]) -> None:
    pool = Pool()
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nt: v\r\n\r\n"
    for octets, trailers in ((OK, ()), (chunked, ((b"t", b"v"),))):
        _, client = pool.ask()
        for start, stop in itertools.pairwise(
            [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
        ):
            pool.wire.send(octets[start:stop]) if start < stop else None
        assert client.said[0] == ("head", 200, False)
        assert b"".join(each[1] for each in client.said if each[0] == "body") == b"abc"
        assert client.said[-1] == ("end", trailers)
    assert pool.spares == 2


def test_bodies_are_framed_as_they_are_known() -> None:
    pool = Pool()
    exchange, _ = pool.ask(b"POST", [(b"content-length", b"3")], end=False)
    exchange.body(memoryview(b"abc"))
    exchange.end(())
    assert pool.wire.said().endswith(b"content-length: 3\r\n\r\nabc")
    pool.wire.send(OK)
    exchange, _ = pool.ask(b"POST", end=False)
    exchange.body(memoryview(b"abc"))
    exchange.body(memoryview(b"y" * 5000))
    exchange.end(((b"t", b"v"),))
    assert pool.wire.said().endswith(
        b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1388\r\n" + b"y" * 5000 + b"\r\n0\r\nt: v\r\n\r\n"
    )
    pool.wire.send(OK)
    pool.ask(b"POST")
    assert pool.wire.said().endswith(b"content-length: 0\r\n\r\n")


@pytest.mark.parametrize(
    ("octets", "reused"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc", True),
        (b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK, True),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, True),
    ],
)
def test_a_connection_is_spare_where_the_server_keeps_it(octets: bytes, reused: bool) -> None:
    pool = Pool()
    _, client = pool.ask()
    pool.wire.send(octets)
    assert client.said[-1] == ("end", ())
    assert ("interim", 100) not in client.said
    assert (("interim", 103) in client.said) == (b" 103 " in octets)
    assert pool.spares == int(reused)
    assert pool.wire.over is not reused


def test_a_body_until_the_end_of_the_connection() -> None:
    pool = Pool()
    _, client = pool.ask()
    pool.wire.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
    pool.connection.ended()
    assert client.said[1:] == [("body", b"abc"), ("end", ())]
    assert pool.spares == 0


@pytest.mark.parametrize(
    "octets",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"\x15\x03\x03",
    ],
)
def test_a_server_that_is_not_to_be_believed_is_answered_for(octets: bytes) -> None:
    pool = Pool()
    exchange, client = pool.ask()
    pool.wire.send(octets)
    assert client.said[0] == ("head", 502, False)
    assert exchange.flag == "UPE"
    assert pool.wire.aborted is not None
    assert pool.spares == 0
    assert pool.over == 1


def test_more_than_an_answer_is_no_answer_to_somebody_else() -> None:
    pool = Pool()
    exchange, _ = pool.ask()
    pool.wire.send(OK + b"HTTP/1.1 200 OK\r\n\r\nsmuggled")
    assert exchange.status == 200
    assert pool.wire.aborted is not None
    pool = Pool()
    pool.wire.send(b"HTTP/1.1 200 OK\r\n\r\n")
    assert pool.wire.aborted is not None
    assert pool.over == 1


def test_a_request_that_waits_for_the_connection_does_not_get_what_nobody_asked_for() -> None:
    for octets in (OK + OK, OK.replace(b"3\r\n\r\nabc", b"0\r\n\r\n") + OK):
        pool = Pool()
        pool.ask()
        client = Client()
        pool.next = Exchange(pool.rig.way, client, Request(b"GET", b"a", b"/next", []))
        pool.next.start(True)
        pool.wire.send(octets)
        assert client.said == []
        assert (pool.spares, pool.over) == (0, 1)


@pytest.mark.parametrize(("begun", "status"), [(b"", 503), (b"HTTP/1.1 200 OK\r\nContent-Le", 503)])
def test_a_server_that_goes_before_it_has_answered(begun: bytes, status: int) -> None:
    for end in ("ended", "lost"):
        pool = Pool()
        exchange, client = pool.ask(b"POST")
        if begun:
            pool.wire.send(begun)
        pool.connection.ended() if end == "ended" else pool.connection.lost(None)
        assert client.said[0] == ("head", status, False)
        assert exchange.flag == "UC"


def test_a_server_that_goes_in_the_middle_of_its_answer() -> None:
    pool = Pool()
    exchange, client = pool.ask()
    pool.wire.send(OK[:-1])
    pool.connection.ended()
    assert client.said[-1] == ("reset",)
    assert exchange.flag == "UC"


def test_a_spare_connection_that_the_server_closes_is_spare_no_more() -> None:
    pool = Pool()
    pool.ask()
    pool.wire.send(OK)
    pool.connection.ended()
    assert pool.over == 1
    assert pool.wire.aborted is not None


def test_switched_it_passes_bytes_both_ways() -> None:
    pool = Pool()
    request = Request(b"GET", b"a", b"/", [])
    request.upgrade = b"websocket"
    client = Client()
    exchange = Exchange(pool.rig.way, client, request)
    exchange.start(False)
    pool.connection.carry(exchange)
    assert pool.wire.said().endswith(b"connection: upgrade\r\nupgrade: websocket\r\n\r\n")
    pool.wire.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhi")
    assert client.said == [("head", 101, False), ("body", b"hi")]
    exchange.body(memoryview(b"ho"))
    assert pool.wire.said() == b"ho"
    pool.connection.ended()
    assert client.said[-1] == ("end", ())
    assert pool.spares == 0


def test_a_request_that_is_given_up_takes_its_connection_with_it() -> None:
    pool = Pool()
    exchange, _ = pool.ask()
    exchange.gone()
    assert pool.wire.aborted is not None
    assert pool.over == 1
    pool.wire.send(OK)


def test_chunks_of_one_byte_are_read_in_turns_and_the_end_is_not_forgotten() -> None:
    pool = Pool()
    _, client = pool.ask()
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    pool.wire.send(head + b"1\r\na\r\n" * 500 + b"0\r\n\r\n")
    pool.connection.ended()
    pool.clock.rounds()
    assert b"".join(each[1] for each in client.said if each[0] == "body") == b"a" * 500
    assert client.said[-1] == ("end", ())
