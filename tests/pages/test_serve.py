"""The server over real sockets of the loopback interface."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial

import h11
import pytest
import trio

from ztunnel.pages.message import Limits, Request, Response, text
from ztunnel.pages.serve import Pages, is_local, serve


async def echo(request: Request) -> Response:
    if request.path == "/bug":
        raise KeyError("nobody expected this")
    if request.path == "/local":
        return text(200, str(request.local))
    if request.path == "/slow":
        await trio.sleep_forever()
    query = ",".join(f"{k}={v}" for k, v in request.query.items())
    return text(200, f"{request.method} {request.path} {query} {request.body.decode()}")


@asynccontextmanager
async def served(limits: Limits | None = None, boundary=nullcontext) -> AsyncIterator[trio.SocketListener]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    pages = Pages(echo, limits or Limits(), boundary)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, listeners, pages))
        yield listeners[0]
        nursery.cancel_scope.cancel()


async def connect(listener: trio.SocketListener) -> trio.SocketStream:
    return await trio.open_tcp_stream(*listener.socket.getsockname()[:2])


async def exchange(listener: trio.SocketListener, octets: bytes) -> bytes:
    """Send, and read until the server closes."""
    async with await connect(listener) as stream:
        await stream.send_all(octets)
        return b"".join([part async for part in stream])


class Client:
    """A connection that is kept alive."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.http = h11.Connection(h11.CLIENT)

    async def ask(self, method: str, target: str) -> tuple[int, bytes]:
        request = h11.Request(method=method, target=target, headers=[("host", "localhost")])
        await self.stream.send_all(
            (self.http.send(request) or b"") + (self.http.send(h11.EndOfMessage()) or b"")
        )
        status, body = 0, b""
        while not isinstance(event := self.http.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                self.http.receive_data(await self.stream.receive_some(4096))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
        self.http.start_next_cycle()
        return status, body


def status_of(octets: bytes) -> int:
    return int(octets.split(b" ", 2)[1]) if octets else 0


async def test_a_request_is_answered_with_headers_that_keep_browsers_out():
    async with served() as listener:
        answer = await exchange(listener, b"GET /a?x=1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    head, body = answer.split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert body == b"GET /a x=1 "
    for header in (b"x-content-type-options: nosniff", b"cache-control: no-store", b"default-src 'none'"):
        assert header in head


async def test_many_requests_go_over_one_connection():
    async with served() as listener, await connect(listener) as stream:
        client = Client(stream)
        for path in "abc":
            assert await client.ask("GET", f"/{path}") == (200, f"GET /{path}  ".encode())


async def test_requests_may_come_before_the_answers():
    async with served() as listener:
        two = b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        answer = await exchange(listener, two)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert answer.index(b"GET /1") < answer.index(b"GET /2")


async def test_a_head_request_gets_the_length_and_no_body():
    async with served() as listener:
        answer = await exchange(listener, b"HEAD /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    head, body = answer.split(b"\r\n\r\n")
    assert b"content-length: 9" in head
    assert body == b""


async def test_http_1_0_is_answered_and_closed():
    async with served() as listener:
        assert status_of(await exchange(listener, b"GET /a HTTP/1.0\r\n\r\n")) == 200


async def test_a_body_is_read_also_in_chunks_and_after_100_continue():
    head = b"POST /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
    head += b"Expect: 100-continue\r\n\r\n"
    async with served() as listener, await connect(listener) as stream:
        await stream.send_all(head)
        assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 100")
        await stream.send_all(b"2\r\nhi\r\n0\r\n\r\n")
        answer = b"".join([part async for part in stream])
    assert answer.endswith(b"POST /a  hi")


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"GET /a HTTP/1.1\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nBad Header: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET http://other/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70000, 413),
        (b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 431),
        (b"DELETE / HTTP/1.1\r\nHost: h\r\n\r\n", 501),
        (b"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n", 400),
    ],
)
async def test_what_is_not_a_request_is_refused_and_the_connection_closed(octets, status):
    async with served() as listener:
        assert status_of(await exchange(listener, octets)) == status


async def test_a_request_under_another_name_is_refused_where_names_are_checked():
    async with served(Limits(hosts=frozenset({"localhost"}))) as listener:
        assert status_of(await exchange(listener, b"GET / HTTP/1.1\r\nHost: evil\r\n\r\n")) == 403
        assert status_of(await exchange(listener, b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")) == 200


async def test_a_client_that_begins_a_request_and_stops_is_told_so():
    async with served(Limits(head_seconds=0.05)) as listener:
        assert status_of(await exchange(listener, b"GET / HT")) == 408


async def test_a_client_that_does_not_send_its_body_is_told_so():
    async with served(Limits(body_seconds=0.05)) as listener:
        half = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab"
        assert status_of(await exchange(listener, half)) == 408


async def test_a_client_that_asks_nothing_is_closed_without_a_word():
    async with served(Limits(idle_seconds=0.05)) as listener:
        assert await exchange(listener, b"") == b""


async def test_an_answer_that_takes_too_long_is_given_up():
    async with served(Limits(answer_seconds=0.05)) as listener:
        assert status_of(await exchange(listener, b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")) == 503


async def test_a_bug_in_a_page_ends_at_the_boundary_and_the_server_goes_on():
    bugs: list[KeyError] = []

    @contextmanager
    def boundary() -> Iterator[None]:
        try:
            yield
        except KeyError as error:
            bugs.append(error)

    async with served(boundary=boundary) as listener:
        assert status_of(await exchange(listener, b"GET /bug HTTP/1.1\r\nHost: h\r\n\r\n")) == 500
        assert status_of(await exchange(listener, b"GET /a HTTP/1.0\r\n\r\n")) == 200
    assert len(bugs) == 1


async def test_who_only_holds_connections_open_does_not_keep_others_out():
    async with served(Limits(connections=2)) as listener:
        idle = [await connect(listener) for _ in range(5)]
        assert status_of(await exchange(listener, b"GET /a HTTP/1.0\r\n\r\n")) == 200
        with trio.fail_after(2):
            assert await idle[0].receive_some(1) == b""
        for stream in idle:
            await stream.aclose()


async def test_when_all_connections_are_busy_a_new_one_is_closed():
    async with served(Limits(connections=1)) as listener, await connect(listener) as busy:
        await busy.send_all(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert await exchange(listener, b"") == b""


async def test_a_client_that_goes_away_at_any_point_harms_nobody():
    whole = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"
    async with served() as listener:
        for end in range(len(whole)):
            async with await connect(listener) as stream:
                await stream.send_all(whole[:end])
        assert status_of(await exchange(listener, b"GET /a HTTP/1.0\r\n\r\n")) == 200


async def test_a_request_knows_whether_it_came_over_loopback() -> None:
    asked = b"GET /local HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    async with served() as listener:
        assert (await exchange(listener, asked)).endswith(b"True")


class _From:
    """A stream of a client elsewhere."""

    def __init__(self, address: object) -> None:
        self.address = address
        self.socket = self

    def getpeername(self) -> tuple[object, int]:
        if self.address is None:
            raise OSError("gone")
        return self.address, 1


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("10.0.0.1", False),
        ("fd00::1", False), ("fe80::1%eth0", False), ("::ffff:10.0.0.1", False), (None, False),
    ],
)  # fmt: skip
def test_loopback_is_of_either_family_and_of_nobody_else(address: str | None, local: bool) -> None:
    assert is_local(_From(address)) is local
