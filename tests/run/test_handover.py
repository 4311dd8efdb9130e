"""The packets of a handover: whole, with their descriptors, or refused without one left over."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from ztunnel.errors import PeerError
from ztunnel.run.handover import MOST_BYTES, Channel, close_all, listening, socket_of


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with Channel(one) as channel, other:
        yield channel, other


def inode(fd: int) -> int:
    return os.fstat(fd).st_ino


def test_each_installation_has_a_socket_of_its_own_that_fits() -> None:
    run = Path("/var/run/ztunnel")
    assert socket_of(run, Path("/sys/fs/bpf/ztunnel/n1")) == run / "n1.sock"
    long = [socket_of(run, Path(f"/sys/fs/bpf/ztunnel/{'n' * 200}{end}")) for end in "ab"]
    assert long[0] != long[1]
    assert all(len(str(each)) < 108 for each in long)


async def test_a_packet_arrives_with_its_descriptors(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    with socket.create_server(("127.0.0.1", 0)) as one, Channel(other.dup()) as peer:
        await channel.send({"pod": 7}, [one.fileno()])
        await channel.send({"end": 0})
        message, files = await peer.receive() or ({}, [])
        assert message == {"pod": 7}
        assert [inode(fd) for fd in files] == [inode(one.fileno())]
        assert not os.get_inheritable(files[0])
        close_all(files)
        assert await peer.receive() == ({"end": 0}, [])


async def test_the_end_of_the_other_side_is_seen(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    other.close()
    assert await channel.receive() is None
    with pytest.raises(OSError, match="Broken pipe"):
        await channel.send({"taken": True})


async def test_more_than_the_other_side_takes_waits_for_it(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    got: list[object] = []

    async def send_all() -> None:
        for number in range(100):
            await channel.send({"calls": ["x" * 30000], "number": number})
        await channel.send({"end": True})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_all)
        with Channel(other.dup()) as peer:
            while (packet := await peer.receive()) is not None and "end" not in packet[0]:
                got.append(packet[0]["number"])
    assert got == list(range(100))


@pytest.mark.parametrize(
    "packet", [b"no json", b"[1]", b"\xff", b"[" * 50000, b" " * (MOST_BYTES + 1), b"17", b"{", b"null"]
)
async def test_what_is_no_packet_is_refused_and_its_descriptors_are_closed(
    ends: tuple[Channel, socket.socket], packet: bytes
) -> None:
    channel, other = ends
    before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(other, [packet], [other.fileno()])
    with pytest.raises(PeerError, match="a packet"):
        await channel.receive()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_too_many_descriptors_are_refused(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(other, [b"{}"], [other.fileno()] * 33)
    with pytest.raises(PeerError, match="descriptors"):
        await channel.receive()
    assert len(os.listdir("/proc/self/fd")) == before


def test_who_is_at_the_other_end_is_known(ends: tuple[Channel, socket.socket]) -> None:
    assert ends[0].peer() == (os.getpid(), os.geteuid())


def test_only_a_listening_socket_is_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with listening(os.dup(server.fileno())) as same:
            assert same.getsockname() == server.getsockname()
            assert not same.getblocking()
        with socket.create_connection(server.getsockname()) as client, pytest.raises(PeerError):
            listening(os.dup(client.fileno()))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, pytest.raises(PeerError):
        listening(os.dup(datagrams.fileno()))
    read, write = os.pipe()
    with pytest.raises(PeerError):
        listening(read)
    os.close(write)
