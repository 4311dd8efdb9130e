"""A session over a stream: what ends it, and that it ends in time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio.testing

from ztunnel.flow.rate import Bucket, Rate
from ztunnel.http2.frame import PREFACE, Code, Frame, push_frame, push_goaway, push_settings
from ztunnel.rpc.drive import Driver
from ztunnel.rpc.limits import CLIENT, SERVER
from ztunnel.rpc.session import Session
from ztunnel.rpc.status import Code as Status
from ztunnel.rpc.status import PeerLeft, RpcError

OPEN = [(":method", "POST"), (":scheme", "https"), (":path", "/"), (":authority", "h")]
BEGIN = PREFACE + push_settings({})


async def ignore() -> None:
    """Nobody looks."""


def points() -> Bucket:
    return Bucket(Rate(1e6, 1, 0), 0.0)


def server_on(stream: trio.abc.Stream, **limits: float) -> Driver:
    made = replace(SERVER, **limits)
    return Driver(stream, Session(made, server=True, now=0.0, peer=points()), made)


async def test_the_end_of_the_peer_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    mine, theirs = trio.testing.memory_stream_pair()
    driver = server_on(mine)
    await theirs.send_all(BEGIN)
    await theirs.aclose()
    await driver.run(ignore)
    assert "closed" in driver.over


async def test_a_silent_peer_is_asked_and_then_left(autojump_clock: trio.testing.MockClock) -> None:
    mine, theirs = trio.testing.memory_stream_pair()
    driver = server_on(mine)
    await theirs.send_all(BEGIN)
    begun = trio.current_time()
    await driver.run(ignore)
    assert trio.current_time() - begun == pytest.approx(40, abs=2)
    assert driver.over == "the peer did not answer a ping within 10 s"
    assert bytes([Frame.PING]) in await theirs.receive_some(10_000)


async def test_a_peer_that_answers_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    mine, theirs = trio.testing.memory_stream_pair()
    server = server_on(mine)
    client = Driver(theirs, Session(CLIENT, server=False, now=0.0, peer=points()), CLIENT)
    with trio.move_on_after(3600) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run, ignore)
            nursery.start_soon(server.run, ignore)
    assert scope.cancelled_caught


async def test_a_peer_that_does_not_read_is_left(autojump_clock: trio.testing.MockClock) -> None:
    mine, theirs = trio.testing.memory_stream_pair()
    mine.send_stream.send_all_hook = trio.sleep_forever
    driver = server_on(mine, ping_seconds=1e6)
    begun = trio.current_time()
    await theirs.send_all(BEGIN)
    await driver.run(ignore)
    assert driver.over == "the peer took nothing for 30 s"
    assert trio.current_time() - begun < 35


async def test_a_peer_that_asks_and_does_not_read_is_read_no_further(
    autojump_clock: trio.testing.MockClock,
) -> None:
    mine, theirs = trio.testing.lockstep_stream_pair()
    driver = server_on(mine, ping_seconds=1e6)
    driver.session._guard._preface = 0  # its budget is not what this is about
    driver.session._guard.budget.updates = 10**9
    sent = 0
    ping = push_frame(Frame.PING, 0, 0, bytes(8)) * 100
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run, ignore)
        with trio.move_on_after(10):
            await theirs.send_all(BEGIN)
            while True:
                await theirs.send_all(ping)
                sent += 1
        assert driver.session.backlog < 128 << 10
        nursery.cancel_scope.cancel()


async def test_one_that_breaks_the_rules_is_told_why(autojump_clock: trio.testing.MockClock) -> None:
    mine, theirs = trio.testing.memory_stream_pair()
    driver = server_on(mine)
    await theirs.send_all(BEGIN + push_frame(Frame.DATA, 0, 1, b"x"))
    await driver.run(ignore)
    assert "rules of HTTP/2" in driver.over
    assert bytes([Frame.GOAWAY, 0, 0, 0, 0, 0]) in await theirs.receive_some(10_000)


async def test_a_lost_connection_fails_its_calls(autojump_clock: trio.testing.MockClock) -> None:
    mine, theirs = trio.testing.memory_stream_pair()
    driver = Driver(mine, Session(CLIENT, server=False, now=0.0, peer=points()), CLIENT)
    stream = driver.session.open(OPEN)
    await theirs.send_all(push_settings({}))
    await theirs.aclose()
    await driver.run(ignore)
    assert isinstance(stream.error, RpcError)
    assert "closed" in str(stream.error)


@pytest.mark.parametrize(
    ("code", "planned"), [(Code.NO_ERROR, True), (Code.ENHANCE_YOUR_CALM, False), (None, False)]
)
async def test_calls_tell_a_leave_that_was_taken_from_a_loss(
    autojump_clock: trio.testing.MockClock, code: Code | None, planned: bool
) -> None:
    """As grpc-go does when a connection is old: leave is taken, and what is open ends ten seconds later."""
    mine, theirs = trio.testing.memory_stream_pair()
    driver = Driver(mine, Session(CLIENT, server=False, now=0.0, peer=points()), CLIENT)
    stream = driver.session.open(OPEN)
    await theirs.send_all(push_settings({}))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run, ignore)
        if code is not None:
            await theirs.send_all(push_goaway(stream.id, code, b"why"))
        await trio.testing.wait_all_tasks_blocked()
        assert stream.error is None
        await trio.sleep(10)
        await theirs.aclose()
    assert isinstance(stream.error, RpcError)
    assert stream.error.code is Status.UNAVAILABLE
    assert isinstance(stream.error, PeerLeft) is planned
    if code is not None:
        assert f"(GOAWAY {code.name} why)" in stream.error.message


async def test_finish_waits_for_what_is_open(autojump_clock: trio.testing.MockClock) -> None:
    mine, theirs = trio.testing.memory_stream_pair()
    server = server_on(theirs)
    client = Driver(mine, Session(CLIENT, server=False, now=0.0, peer=points()), CLIENT)
    stream = client.session.open(OPEN)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run, ignore)
        nursery.start_soon(server.run, ignore)
        client.finish()
        await trio.testing.wait_all_tasks_blocked()
        assert not client.over
        client.session.reset(stream, Code.CANCEL)
        client.kick()
    assert client.over == "the connection was ended"
    assert server.over == "the peer closed the connection"
