"""Our client's calls, with grpcio as the server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from threading import Event
from typing import Any

import grpc
import pytest
import trio

from tests.rpc.conftest import HOST, Pair, client_context, grpcio_server, plain_grpcio_server
from ztunnel.rpc.call import Call, open_channel
from ztunnel.rpc.limits import CLIENT
from ztunnel.rpc.status import Code, RpcError

pytestmark = pytest.mark.timeout(30)

run = trio.to_thread.run_sync


def reverse(request: bytes, context: grpc.ServicerContext) -> bytes:
    return request[::-1]


def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you: café 100%")
    return b""


def echo(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    yield from requests


def count(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    for number in range(int(request)):
        yield b"%d" % number


def describe(request: bytes, context: grpc.ServicerContext) -> bytes:
    left = context.time_remaining()
    return repr((sorted(context.invocation_metadata()), round(left) if left < 1e6 else None)).encode()


class Stuck:
    """A method that waits until its call is cancelled."""

    def __init__(self) -> None:
        self.begun = Event()
        self.cancelled = Event()

    def __call__(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.add_callback(self.cancelled.set)
        self.begun.set()
        self.cancelled.wait(4)
        return b""


METHODS: dict[str, Any] = {
    "/t/Reverse": grpc.unary_unary_rpc_method_handler(reverse),
    "/t/Refuse": grpc.unary_unary_rpc_method_handler(refuse),
    "/t/Echo": grpc.stream_stream_rpc_method_handler(echo),
    "/t/Count": grpc.unary_stream_rpc_method_handler(count),
    "/t/Describe": grpc.unary_unary_rpc_method_handler(describe),
}


async def test_calls_of_every_kind(pair: Pair) -> None:
    with grpcio_server(pair, METHODS) as (_, port):
        context = client_context(pair)
        async with open_channel("127.0.0.1", port, lambda: context, HOST) as channel:
            assert await channel.unary("/t/Reverse", b"abc", timeout_seconds=3) == b"cba"
            with pytest.raises(RpcError) as refused:
                await channel.unary("/t/Refuse", b"", timeout_seconds=3)
            assert refused.value.code is Code.PERMISSION_DENIED
            assert refused.value.message == "not you: café 100%"
            with pytest.raises(RpcError) as unknown:
                await channel.unary("/t/Nowhere", b"", timeout_seconds=3)
            assert unknown.value.code is Code.UNIMPLEMENTED
            async with channel.stream("/t/Echo") as call:
                for number in range(20):
                    await call.send(b"%d" % number)
                    assert await call.receive() == b"%d" % number
                await call.end()
                assert await call.receive() is None
            async with channel.stream("/t/Count") as call:
                await call.send(b"1000")
                await call.end()
                got = [await call.receive() for _ in range(1001)]
            assert got == [*(b"%d" % number for number in range(1000)), None]
            described = await channel.unary("/t/Describe", b"", {"clusterid": "K"}, timeout_seconds=3)
            assert b"key='clusterid', value='K'" in described
            assert described.endswith(b", 3)")


async def test_a_deadline_ends_the_call_here_and_there(pair: Pair) -> None:
    stuck = Stuck()
    with grpcio_server(pair, {"/t/Stuck": grpc.unary_unary_rpc_method_handler(stuck)}) as (_, port):
        context = client_context(pair)
        async with open_channel("127.0.0.1", port, lambda: context, HOST) as channel:
            with pytest.raises(RpcError) as late:
                await channel.unary("/t/Stuck", b"", timeout_seconds=0.2)
            assert late.value.code is Code.DEADLINE_EXCEEDED
            assert await run(stuck.cancelled.wait, 3)


async def test_leaving_the_block_cancels_the_call_there(pair: Pair) -> None:
    stuck = Stuck()
    with grpcio_server(pair, {"/t/Stuck": grpc.unary_unary_rpc_method_handler(stuck)}) as (_, port):
        context = client_context(pair)
        async with open_channel("127.0.0.1", port, lambda: context, HOST) as channel:
            async with channel.stream("/t/Stuck") as call:
                await call.send(b"")
                await call.end()
                assert await run(stuck.begun.wait, 3)
            assert await run(stuck.cancelled.wait, 3)


async def test_messages_of_megabytes(pair: Pair) -> None:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    large = bytes(range(256)) * 50_000
    with grpcio_server(pair, METHODS, *options) as (_, port):
        context = client_context(pair)
        async with open_channel("127.0.0.1", port, lambda: context, HOST) as channel:
            assert await channel.unary("/t/Reverse", large, timeout_seconds=4) == large[::-1]


async def test_a_server_that_stops_lets_calls_end_and_takes_no_new_ones(pair: Pair) -> None:
    with grpcio_server(pair, METHODS) as (server, port):
        context = client_context(pair)
        async with open_channel("127.0.0.1", port, lambda: context, HOST) as channel:
            async with channel.stream("/t/Echo") as call:
                await call.send(b"before")
                assert await call.receive() == b"before"
                stopped = server.stop(4)
                while not channel.leaving:
                    await trio.testing.wait_all_tasks_blocked(0.001)
                with pytest.raises(RpcError) as refused:
                    await channel.unary("/t/Reverse", b"")
                assert refused.value.code is Code.UNAVAILABLE
                await call.send(b"after")
                assert await call.receive() == b"after"
                await call.end()
                assert await call.receive() is None
            await run(stopped.wait)


async def test_a_server_that_is_gone_fails_what_is_open(pair: Pair) -> None:
    with grpcio_server(pair, METHODS) as (server, port):
        context = client_context(pair)
        async with open_channel("127.0.0.1", port, lambda: context, HOST) as channel:
            async with channel.stream("/t/Echo") as call:
                await call.send(b"x")
                await call.receive()
                server.stop(0)
                with pytest.raises(RpcError) as lost:
                    await call.receive()
            assert lost.value.code in (Code.UNAVAILABLE, Code.CANCELLED)
            await channel.closed.wait()


async def test_an_error_of_the_block_is_no_group(pair: Pair) -> None:
    with grpcio_server(pair, METHODS) as (_, port):
        context = client_context(pair)
        with pytest.raises(KeyError):
            async with open_channel("127.0.0.1", port, lambda: context, HOST):
                raise KeyError("ours")


async def test_a_channel_that_cannot_be_opened_says_why(pair: Pair) -> None:
    with pytest.raises(RpcError, match="UNAVAILABLE: no connection to "):
        async with open_channel("127.0.0.1", 1, lambda: client_context(pair), HOST):
            pass


async def test_a_server_that_wants_no_pings_says_so(pair: Pair) -> None:
    """gRPC servers allow a ping in five minutes by default, istiod one in 15 s: the log has to say it."""
    limits = replace(CLIENT, ping_seconds=0.05, pong_seconds=0.5)
    with grpcio_server(pair, METHODS) as (_, port):
        context = client_context(pair)
        async with open_channel("127.0.0.1", port, lambda: context, HOST, limits) as channel:
            async with channel.stream("/t/Echo") as call:
                with pytest.raises(RpcError, match=r"(?i)too.many.pings") as ended:
                    await call.receive()
            assert ended.value.code is Code.UNAVAILABLE


async def test_what_is_said_after_the_end_is_no_bug(pair: Pair) -> None:
    with grpcio_server(pair, METHODS) as (_, port):
        context = client_context(pair)
        async with open_channel("127.0.0.1", port, lambda: context, HOST) as channel:
            async with channel.stream("/t/Refuse") as call:
                await call.send(b"x")
                with pytest.raises(RpcError, match="not you"):
                    await call.receive()
                await call.end()
                call.cancel()
                call.cancel()
                with pytest.raises(RpcError, match="not you"):
                    await call.receive()
            assert await channel.unary("/t/Reverse", b"ab") == b"ba"


async def test_a_send_that_waits_for_the_window_ends_with_the_server(pair: Pair) -> None:
    stuck = Stuck()
    method = grpc.stream_unary_rpc_method_handler(lambda requests, context: stuck(b"", context))
    with grpcio_server(pair, {"/t/Stuck": method}) as (server, port):
        context = client_context(pair)
        async with open_channel("127.0.0.1", port, lambda: context, HOST) as channel:
            async with channel.stream("/t/Stuck") as call:
                with trio.move_on_after(1) as waits:
                    while True:
                        await call.send(bytes(1 << 20))
                assert waits.cancelled_caught
            async with channel.stream("/t/Stuck") as call, trio.open_nursery() as nursery:
                nursery.start_soon(run, server.stop, 0)
                with pytest.raises(RpcError):
                    await flood(call)


async def flood(call: Call) -> None:
    while True:
        await call.send(bytes(1 << 20))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_calls_in_plaintext_of_a_server_that_answers_at_once(host: str) -> None:
    with plain_grpcio_server(host, METHODS) as port:
        async with open_channel(host, port, None) as channel:
            for _ in range(100):
                assert await channel.unary("/t/Reverse", b"ab" * 20_000) == b"ba" * 20_000
