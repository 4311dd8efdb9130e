"""How a call ends, by what its handler does."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import cast

import grpc
import pytest
import trio

from tests.rpc.conftest import Bugs, Serve
from ztunnel.rpc.answer import ServerCall, answer
from ztunnel.rpc.status import Code, RpcError

pytestmark = pytest.mark.timeout(30)


async def test_a_bug_ends_its_call_alone_and_is_reported(serve: Serve) -> None:
    async def broken(call: ServerCall) -> None:
        raise ZeroDivisionError("ours")

    async def fine(call: ServerCall) -> None:
        await call.send(b"fine")

    async with serve({"/t/Broken": broken, "/t/Fine": fine}) as running, running.channel() as channel:
        with pytest.raises(RpcError) as failed:
            await channel.unary("/t/Broken", b"")
        assert (failed.value.code, failed.value.message) == (Code.INTERNAL, "internal error")
        assert await channel.unary("/t/Fine", b"") == b"fine"
        assert [type(each) for each in running.bugs] == [ZeroDivisionError]


async def test_an_error_out_of_a_nursery_is_the_status(serve: Serve) -> None:
    async def grouped(call: ServerCall) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise RpcError(Code.NOT_FOUND, "nobody")

    async with serve({"/t/Grouped": grouped}) as running, running.channel() as channel:
        with pytest.raises(RpcError, match="NOT_FOUND: nobody"):
            await channel.unary("/t/Grouped", b"")
        assert not running.bugs


async def test_a_bug_beside_the_end_of_its_connection_is_reported_and_ends_nothing_else() -> None:
    bugs = Bugs()

    async def broken(call: ServerCall) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                raise ZeroDivisionError("ours") from None

    call = cast(ServerCall, SimpleNamespace(scope=trio.CancelScope(), gone=True))
    with trio.CancelScope() as connection:
        connection.cancel()
        await answer(call, broken, bugs)
    assert connection.cancelled_caught
    [group] = bugs.seen
    assert isinstance(group, ExceptionGroup)
    assert [type(each) for each in group.exceptions] == [ZeroDivisionError]


async def test_an_error_beside_the_end_of_its_connection_ends_nothing_else() -> None:
    """As where a client is killed: reading fails, and all that serves the connection is cancelled at once."""

    async def torn(call: ServerCall) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                raise RpcError(Code.UNAVAILABLE, "the peer closed the connection") from None

    call = cast(ServerCall, SimpleNamespace(scope=trio.CancelScope(), gone=True))
    with trio.CancelScope() as connection:
        connection.cancel()
        await answer(call, torn, nullcontext)
    assert connection.cancelled_caught


async def test_an_error_after_messages_drops_what_nobody_took(serve: Serve) -> None:
    async def half(call: ServerCall) -> None:
        await call.send(b"first")
        raise RpcError(Code.ABORTED, "enough")

    async with (
        serve({"/t/Half": half}) as running,
        running.channel() as channel,
        channel.stream("/t/Half") as call,
    ):
        assert await call.receive() == b"first"
        with pytest.raises(RpcError, match="ABORTED: enough"):
            await call.receive()


async def test_a_handler_ends_with_the_clients_deadline(serve: Serve) -> None:
    ended = trio.Event()

    async def slow(call: ServerCall) -> None:
        assert call.deadline < trio.current_time() + 1
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with serve({"/t/Slow": slow}) as running:
        with running.grpcio() as channel:
            with pytest.raises(grpc.RpcError) as late:
                await trio.to_thread.run_sync(lambda: channel.unary_unary("/t/Slow")(b"", timeout=0.2))
            assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await ended.wait()


async def test_a_handler_ends_when_its_client_gives_up(serve: Serve) -> None:
    begun, ended = trio.Event(), trio.Event()

    async def slow(call: ServerCall) -> None:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with serve({"/t/Slow": slow}) as running, running.channel() as channel:
        async with channel.stream("/t/Slow"):
            await begun.wait()
        await ended.wait()


async def test_tasks_of_a_handler_that_end_with_the_call_are_no_bug(serve: Serve) -> None:
    begun, ended = trio.Event(), trio.Event()

    async def several(call: ServerCall) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                begun.set()
                await call.receive()
        finally:
            ended.set()

    async with serve({"/t/Several": several}) as running, running.channel() as channel:
        async with channel.stream("/t/Several"):
            await begun.wait()
        await ended.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert not running.bugs


async def test_a_client_that_does_not_take_its_messages_stops_the_handler(serve: Serve) -> None:
    sent, given_up = 0, trio.Event()

    async def pour(call: ServerCall) -> None:
        nonlocal sent
        with trio.move_on_after(0.3):
            while True:
                await call.send(bytes(100_000))
                sent += 1
        given_up.set()
        raise RpcError(Code.DEADLINE_EXCEEDED, "you do not read")

    async with (
        serve({"/t/Pour": pour}) as running,
        running.channel(window_bytes=1 << 20) as channel,
        channel.stream("/t/Pour") as call,
    ):
        await given_up.wait()
        for _ in range(sent):
            assert await call.receive() == bytes(100_000)
        with pytest.raises(RpcError, match="you do not read"):
            await call.receive()
    assert 9 <= sent <= 11


async def test_a_message_that_is_too_large_is_the_status(serve: Serve) -> None:
    async def take(call: ServerCall) -> None:
        await call.receive()

    async with serve({"/t/Take": take}) as running, running.channel() as channel:
        with pytest.raises(RpcError) as refused:
            await channel.unary("/t/Take", bytes(257 << 10), timeout_seconds=4)
        assert refused.value.code is Code.RESOURCE_EXHAUSTED
