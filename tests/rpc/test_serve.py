"""A server of ours, with grpcio as its client and with our own."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import grpc
import pytest
import trio

from tests.rpc.conftest import HOST, Pair, Running, Serve, client_context, make_pair, server_context
from ztunnel.http2.frame import PREFACE, Frame, push_frame, push_settings
from ztunnel.rpc.answer import ServerCall
from ztunnel.rpc.limits import SERVER
from ztunnel.rpc.status import Code, RpcError

pytestmark = pytest.mark.timeout(30)


async def echo(call: ServerCall) -> None:
    while (message := await call.receive()) is not None:
        await call.send(message)


async def upper(call: ServerCall) -> None:
    request = await call.receive()
    assert request is not None
    await call.send(request.upper())


async def refuse(call: ServerCall) -> None:
    raise RpcError(Code.PERMISSION_DENIED, "not you: café 100%")


async def forever(call: ServerCall) -> None:
    await call.receive()
    await trio.sleep_forever()


async def describe(call: ServerCall) -> None:
    await call.receive()
    await call.send(repr((dict(call.metadata), str(call.peer.address.ip))).encode())


METHODS = {
    "/t/Echo": echo,
    "/t/Upper": upper,
    "/t/Refuse": refuse,
    "/t/Forever": forever,
    "/t/Describe": describe,
}

run = trio.to_thread.run_sync


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_grpcio_calls_a_unary_method(serve: Serve, host: str) -> None:
    async with serve(METHODS, host=host) as running:
        with running.grpcio() as channel:
            assert await run(lambda: channel.unary_unary("/t/Upper")(b"abc", timeout=3)) == b"ABC"
            got = await run(
                lambda: channel.unary_unary("/t/Describe")(b"", metadata=[("clusterid", "K")], timeout=3)
            )
            assert b"'clusterid': 'K'" in got
            assert host.encode() in got
    assert not running.bugs


async def test_grpcio_streams_both_ways(serve: Serve) -> None:
    def talk(channel: grpc.Channel) -> list[bytes]:
        def say() -> Iterator[bytes]:
            for number in range(100):
                yield b"%d" % number

        return list(channel.stream_stream("/t/Echo")(say(), timeout=3))

    async with serve(METHODS) as running:
        with running.grpcio() as channel:
            assert await run(partial(talk, channel)) == [b"%d" % number for number in range(100)]


async def test_grpcio_sees_status_and_message(serve: Serve) -> None:
    async with serve(METHODS) as running:
        with running.grpcio() as channel:
            with pytest.raises(grpc.RpcError) as refused:
                await run(lambda: channel.unary_unary("/t/Refuse")(b"", timeout=3))
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert refused.value.details() == "not you: café 100%"
            with pytest.raises(grpc.RpcError) as unknown:
                await run(lambda: channel.unary_unary("/t/Nowhere")(b"", timeout=3))
            assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED
            begun = time.monotonic()
            with pytest.raises(grpc.RpcError) as late:
                await run(lambda: channel.unary_unary("/t/Forever")(b"", timeout=0.3))
            assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert time.monotonic() - begun < 2


async def test_large_messages_go_both_ways(serve: Serve) -> None:
    large = bytes(range(256)) * 40_000
    async with serve(METHODS, limits=replace(SERVER, message_bytes=1 << 24)) as running:
        with running.grpcio(("grpc.max_receive_message_length", -1)) as channel:
            got = await run(lambda: b"".join(channel.stream_stream("/t/Echo")(iter([large]), timeout=4)))
            assert got == large
        async with running.channel() as ours, ours.stream("/t/Echo") as call:
            await call.send(large)
            assert await call.receive() == large


async def test_our_client_calls(serve: Serve) -> None:
    async with serve(METHODS) as running, running.channel() as channel:
        assert await channel.unary("/t/Upper", b"abc", timeout_seconds=3) == b"ABC"
        with pytest.raises(RpcError, match="PERMISSION_DENIED: not you: café 100%"):
            await channel.unary("/t/Refuse", b"")
        with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
            await channel.unary("/t/Forever", b"", timeout_seconds=0.2)
        async with channel.stream("/t/Echo") as call:
            for number in range(10):
                await call.send(b"%d" % number)
                assert await call.receive() == b"%d" % number
            await call.end()
            assert await call.receive() is None


async def test_a_drain_lets_calls_end_and_refuses_new_ones(serve: Serve) -> None:
    async with serve(METHODS) as running, running.channel() as channel:
        async with channel.stream("/t/Echo") as call:
            await call.send(b"before")
            assert await call.receive() == b"before"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(running.server.drain, 4)
                while not channel.leaving:
                    await trio.testing.wait_all_tasks_blocked(0.001)
                with pytest.raises(RpcError, match="leaving"):
                    await channel.unary("/t/Upper", b"x")
                with pytest.raises(OSError, match="failed"):
                    await trio.open_tcp_stream(running.host, running.port)
                await call.send(b"after")
                assert await call.receive() == b"after"
                await call.end()
                assert await call.receive() is None
        await channel.closed.wait()


async def test_a_drain_ends_what_does_not_end(serve: Serve) -> None:
    async with (
        serve(METHODS) as running,
        running.channel() as channel,
        channel.stream("/t/Forever") as call,
    ):
        await call.send(b"")
        await running.server.drain(0.1)
        with pytest.raises(RpcError) as ended:
            await call.receive()
        assert ended.value.code is Code.UNAVAILABLE


async def test_grpcio_goes_on_over_a_drain_with_a_new_connection(serve: Serve) -> None:
    """A connection's age is such a drain: a client calls on, and never sees it."""
    async with serve(METHODS, age_seconds=0.3) as running:
        with running.grpcio() as channel:
            upper = channel.unary_unary("/t/Upper")
            end = time.monotonic() + 2
            while time.monotonic() < end:
                assert await run(lambda: upper(b"x", timeout=3)) == b"X"
        assert running.server.counts.handshakes >= 2


async def test_a_bug_of_a_connection_ends_that_one_alone(serve: Serve, pair: Pair, tmp_path: object) -> None:
    contexts = [server_context(pair, tmp_path)]

    def context() -> ssl.SSLContext:
        return contexts.pop()

    async with serve(METHODS, context=context) as running:
        async with running.channel() as first:
            with pytest.raises(RpcError, match="UNAVAILABLE"):
                async with running.channel():
                    pass
            assert await first.unary("/t/Upper", b"x") == b"X"
        assert [type(each) for each in running.bugs] == [IndexError]


async def test_a_connection_without_calls_ends(serve: Serve) -> None:
    async with serve(METHODS, idle_seconds=0.1) as running, running.channel() as channel:
        await channel.closed.wait()


async def test_each_connection_gets_the_certificate_of_its_moment(serve: Serve, tmp_path: object) -> None:
    pairs = [make_pair(HOST), make_pair(HOST)]
    served = [0]

    def context() -> ssl.SSLContext:
        return server_context(pairs[served[0]], tmp_path)

    async with serve(METHODS, context=context) as running:
        running.pair = pairs[0]
        async with running.channel() as before:
            served[0] = 1
            running.pair = pairs[1]
            async with running.channel() as after:
                assert await after.unary("/t/Upper", b"new") == b"NEW"
            assert await before.unary("/t/Upper", b"old") == b"OLD"


async def test_the_clients_certificate_is_given_to_the_handler(
    serve: Serve, pair: Pair, tmp_path: object
) -> None:
    seen: list[tuple[bytes | None, tuple[bytes, ...]]] = []

    async def look(call: ServerCall) -> None:
        seen.append((call.peer.certificate, call.peer.intermediates))
        await call.send(b"")

    asking = server_context(pair, tmp_path)
    asking.verify_mode = ssl.CERT_OPTIONAL
    asking.load_verify_locations(cadata=pair.root.decode())
    async with serve({"/t/Look": look}, context=lambda: asking) as running:
        async with running.channel() as channel:
            await channel.unary("/t/Look", b"")
        with running.grpcio(with_certificate=True) as channel:
            await run(lambda: channel.unary_unary("/t/Look")(b"", timeout=3))
        running.pair = replace(pair, chain=pair.chain + pair.root)
        with running.grpcio(with_certificate=True) as channel:
            await run(lambda: channel.unary_unary("/t/Look")(b"", timeout=3))
    leaf, other = (ssl.PEM_cert_to_DER_cert(pem.decode()) for pem in (pair.chain, pair.root))
    assert seen == [(None, ()), (leaf, ()), (leaf, (other,))]


async def raw(running: Running) -> trio.SSLStream[trio.SocketStream]:
    """A TLS connection without a session on it."""
    tcp = await trio.open_tcp_stream(running.host, running.port)
    tls = trio.SSLStream(tcp, client_context(running.pair), server_hostname=HOST, https_compatible=True)
    await tls.do_handshake()
    return tls


_FELT_SECONDS = 2.0
"""A neighbour's call takes milliseconds, on a busy machine more; a flood that is computed takes seconds."""
FIRST_BYTE_SECONDS = SERVER.first_byte_seconds
HEAD = b"\x83\x87\x04\x04/t/F\x41\x01h\x5f\x10application/grpc"
FLOODS = {
    "PING": push_frame(Frame.PING, 0, 0, bytes(8)),
    "SETTINGS": push_frame(Frame.SETTINGS, 0, 0),
    "empty DATA": push_frame(Frame.DATA, 0, 1),
    "PRIORITY": push_frame(Frame.PRIORITY, 0, 1, bytes(4) + b"\1"),
    "WINDOW_UPDATE": push_frame(Frame.WINDOW_UPDATE, 0, 0, b"\0\0\0\1"),
    "CONTINUATION": push_frame(Frame.CONTINUATION, 0, 3, b""),
    "unknown frames": b"\0\0\0\x77\0\0\0\0\0",
}


@pytest.mark.parametrize("reads", [True, False], ids=["read", "unread"])
@pytest.mark.parametrize("name", [*FLOODS, "rapid reset"])
async def test_a_flood_is_closed_and_hardly_felt(serve: Serve, name: str, reads: bool) -> None:
    """As reference attacks go: a neighbour's calls go on, the attacker is told to calm down."""
    async with serve(METHODS) as running, running.channel() as neighbour:
        tls = await raw(running)
        await tls.send_all(PREFACE + push_settings({}) + push_frame(Frame.HEADERS, 4, 1, HEAD))
        if name == "CONTINUATION":
            await tls.send_all(push_frame(Frame.HEADERS, 0, 3, HEAD[:2]))
        worst, closed = 0.0, False
        async with trio.open_nursery() as nursery:
            if reads:
                nursery.start_soon(read_all, tls)
            for number in range(100):
                piece = FLOODS.get(name, b"") * 100 or resets(2 * 100 * number + 3)
                try:
                    await tls.send_all(piece)
                except trio.BrokenResourceError:
                    closed = True
                    break
                begun = time.monotonic()
                await neighbour.unary("/t/Upper", b"x", timeout_seconds=2)
                worst = max(worst, time.monotonic() - begun)
            nursery.cancel_scope.cancel()
        assert closed
        assert worst < _FELT_SECONDS
        await trio.aclose_forcefully(tls)


def resets(first: int) -> bytes:
    """A hundred calls, each given up at once."""
    return b"".join(
        push_frame(Frame.HEADERS, 5, number, HEAD) + push_frame(Frame.RST_STREAM, 0, number, b"\0\0\0\x08")
        for number in range(first, first + 200, 2)
    )


async def read_all(tls: trio.SSLStream[trio.SocketStream]) -> None:
    try:
        while await tls.receive_some(65536):
            pass
    except trio.BrokenResourceError:
        pass


async def test_those_who_connect_and_say_nothing_keep_nobody_out(serve: Serve) -> None:
    async with serve(METHODS) as running:
        silent = [
            socket.create_connection((running.host, running.port), source_address=("127.0.0.2", 0))
            for _ in range(600)
        ]
        begun = time.monotonic()
        async with running.channel() as channel:
            assert await channel.unary("/t/Upper", b"x") == b"X"
        assert time.monotonic() - begun < FIRST_BYTE_SECONDS + _FELT_SECONDS
        for each in silent:
            each.close()


async def test_one_address_cannot_shake_hands_without_end(serve: Serve) -> None:
    async with serve(METHODS) as running:
        for _ in range(200):
            with socket.create_connection((running.host, running.port)) as each:
                each.sendall(b"\x16\x03\x01\x00\x05hello")
        while not running.server.counts.turned_away:
            with socket.create_connection((running.host, running.port)) as each:
                each.sendall(b"x")
            await trio.testing.wait_all_tasks_blocked()
        assert running.server.counts.handshakes_failed > 100


async def test_keepalive_of_a_client_that_is_eager_is_no_flood(serve: Serve) -> None:
    """A client that pings each second, without calls, is kept for as long as it likes."""
    options = [
        ("grpc.keepalive_time_ms", 100),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    async with serve(METHODS) as running:
        with running.grpcio(*options) as channel:
            upper = channel.unary_unary("/t/Upper")
            assert await run(lambda: upper(b"x", timeout=3)) == b"X"
            with pytest.raises(grpc.RpcError) as late:
                await run(lambda: channel.unary_unary("/t/Forever")(b"", timeout=2))
            assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert await run(lambda: upper(b"y", timeout=3)) == b"Y"
        assert running.server.counts.handshakes == 1
