"""The agent's socket: packets, and what becomes of descriptors."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.zds.agent import Agent, Connected, add, snapshot
from ztunnel.zds.connect import AgentSocket, open_agent
from ztunnel.zds.message import MESSAGE_BYTES, Named, render_hello

WEB = Named("web", "shop", "web")


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@asynccontextmanager
async def joined(tmp_path: Path) -> AsyncIterator[tuple[AgentSocket, Connected]]:
    with Agent(tmp_path / "agent.sock") as agent:
        ours, sock = await open_agent(agent.path)
        with sock:
            await ours.send(render_hello())
            theirs = agent.accept()
            try:
                yield ours, theirs
            finally:
                theirs.close()


async def test_a_descriptor_is_the_takers_and_every_other_one_is_closed(tmp_path: Path) -> None:
    async with joined(tmp_path) as (ours, theirs), _file() as fd:
        before = open_descriptors()
        theirs.post(add("u", WEB), fd)
        packet = await ours.receive()
        assert packet is not None
        with packet:
            taken = packet.take()
        assert os.path.samestat(os.fstat(taken), os.fstat(fd))
        assert not os.get_inheritable(taken)
        os.close(taken)
        for count in (1, 2, 5, 16, 200):
            theirs.post(add("u", WEB), *[fd] * count)
            packet = await ours.receive()
            assert packet is not None
            assert len(packet.descriptors) == min(count, 16)
            assert packet.truncated == (count > 16)
            with packet:
                pass
        assert open_descriptors() == before


async def test_descriptors_of_an_empty_packet_are_closed(tmp_path: Path) -> None:
    async with joined(tmp_path) as (ours, theirs), _file() as fd:
        before = open_descriptors()
        theirs.post(b"", fd)
        assert await ours.receive() is None
        assert open_descriptors() == before


async def test_a_packet_that_is_too_long_is_truncated_and_the_next_one_is_whole(tmp_path: Path) -> None:
    async with joined(tmp_path) as (ours, theirs):
        theirs.post(b"x" * (MESSAGE_BYTES + 1))
        theirs.post(snapshot())
        long, next_one = await ours.receive(), await ours.receive()
        assert long is not None
        assert long.truncated
        assert next_one is not None
        assert (next_one.payload, next_one.truncated) == (snapshot(), False)


async def test_the_end_of_the_connection_is_told(tmp_path: Path) -> None:
    async with joined(tmp_path) as (ours, theirs):
        theirs.close()
        assert await ours.receive() is None


async def test_where_nobody_listens_the_path_is_named_and_nothing_stays_open(tmp_path: Path) -> None:
    before = open_descriptors()
    with pytest.raises(FileNotFoundError, match=r"agent\.sock"):
        await open_agent(tmp_path / "agent.sock")
    Agent(tmp_path / "agent.sock").close()
    with pytest.raises(ConnectionRefusedError, match=r"agent\.sock"):
        await open_agent(tmp_path / "agent.sock")
    assert open_descriptors() == before


@pytest.mark.root
async def test_only_root_names_pods(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with Agent(path) as agent:
        os.seteuid(65534)
        try:
            agent.listener.listen()  # who listens is whose the socket is
        finally:
            os.seteuid(0)
        before = open_descriptors()
        with pytest.raises(PermissionError, match="user 65534, and not root") as caught:
            await open_agent(path)
        assert caught.value.errno == errno.EPERM
        assert open_descriptors() == before


@asynccontextmanager
async def _file() -> AsyncIterator[int]:
    fd = socket.socket()
    with fd:
        yield fd.fileno()
