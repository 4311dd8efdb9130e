"""The connection with the agent: kept, and made again."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import trio

from tests.zds.agent import Agent, Connected, snapshot
from ztunnel.zds.connect import Packet
from ztunnel.zds.follow import follow
from ztunnel.zds.message import render_answer


class Told:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def connect(self) -> None:
        self.said.append("connected")

    def take(self, packet: Packet) -> bytes:
        self.said.append(packet.payload.hex())
        return render_answer("no" if packet.payload == b"?" else "")

    def disconnect(self, reason: str) -> None:
        self.said.append(reason)


async def accepted(agent: Agent) -> Connected:
    return await trio.to_thread.run_sync(agent.accept)


async def sent(connected: Connected, message: bytes) -> str:
    return await trio.to_thread.run_sync(connected.send, message)


async def test_each_message_is_answered_and_a_refused_one_ends_nothing(tmp_path: Path) -> None:
    told = Told()
    with Agent(tmp_path / "a") as agent:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, agent.path, told, Random(1))
            connected = await accepted(agent)
            assert await sent(connected, b"?") == "no"
            assert await sent(connected, snapshot()) == ""
            nursery.cancel_scope.cancel()
        connected.close()
    assert told.said == ["connected", "3f", "1a00"]


async def test_it_connects_again_and_again_and_leaves_nothing_open(tmp_path: Path) -> None:
    told, path = Told(), tmp_path / "a"
    before = len(os.listdir("/proc/self/fd"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow, path, told, Random(1))
        for _ in range(3):
            with Agent(path) as agent:
                connected = await accepted(agent)
                assert await sent(connected, snapshot()) == ""
                connected.close()
        nursery.cancel_scope.cancel()
    assert told.said.count("connected") == 3
    assert told.said.count("1a00") == 3
    assert "the agent has closed the connection" in told.said
    assert len(os.listdir("/proc/self/fd")) == before


async def test_an_agent_that_is_not_there_is_asked_less_and_less_often(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    told = Told()
    with trio.move_on_after(60):
        await follow(tmp_path / "none", told, Random(1))
    # 10 ms, doubled to 2 s: eight within 2.5 s, then one every 2 s.
    assert 30 <= len(told.said) <= 44
    assert all("No such file" in each for each in told.said)


async def test_an_agent_that_takes_no_answer_is_left(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    told = Told()
    with Agent(tmp_path / "a") as agent, trio.move_on_after(600):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, agent.path, told, Random(1))
            await trio.lowlevel.wait_readable(agent.listener)
            sock, _ = agent.listener.accept()
            await trio.lowlevel.wait_readable(sock)
            connected = Connected(sock)
            sock.setblocking(False)
            async with trio.open_nursery() as floods:
                floods.start_soon(_flood, connected, told)
            connected.close()
            nursery.cancel_scope.cancel()
    assert any("takes no answer for 5 s" in each for each in told.said)


async def _flood(connected: Connected, told: Told) -> None:
    """Ask, and read no answer, until that is noticed."""
    while not any("takes no answer" in each for each in told.said):
        try:
            connected.sock.send(b"?")
        except BlockingIOError:
            await trio.sleep(1)
        except OSError:
            return
        await trio.lowlevel.checkpoint()
