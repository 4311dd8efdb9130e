"""The proxy that serves now, and whoever asks it for what it has."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from tests.run.givers import PINS, Giver
from tests.run.parts import until
from ztunnel.run.handover import VERSION, Channel, close_all
from ztunnel.run.incumbent import TAKEN_SECONDS


@pytest.fixture
def giver() -> Iterator[Giver]:
    made = Giver()
    yield made
    made.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "run" / "n1.sock"


def asking(place: Path) -> Channel:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        sock.connect(str(place))
    except OSError:
        sock.close()
        raise
    return Channel(sock)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir())


def inode(path: Path) -> int:
    return path.stat().st_ino


def replace_by_file(path: Path) -> int:
    """The inode of what stands there now."""
    path.unlink()
    path.touch()
    return path.stat().st_ino


async def ask(channel: Channel, **changes: object) -> list[dict[str, object]]:
    """Ask, and read to the end of the answer; descriptors are closed."""
    await channel.send({"ask": VERSION, "pins": str(PINS), "pages": False, **changes})
    found: list[dict[str, object]] = []
    while (packet := await channel.receive()) is not None:
        close_all(packet[1])
        found.append({**packet[0], "files": len(packet[1])})
        if "end" in packet[0]:
            break
    return found


async def test_its_socket_is_roots_alone_and_gone_at_the_end(giver: Giver, place: Path) -> None:
    async with giver.serving(place):
        assert (mode(place), mode(place.parent)) == (0o600, 0o700)
        assert names(place.parent) == [place.name]
    assert names(place.parent) == []


async def test_who_takes_over_gets_everything_and_it_steps_back_for_good(giver: Giver, place: Path) -> None:
    async with giver.serving(place) as ended:
        with asking(place) as channel:
            answer = await ask(channel)
            assert [each.get("pod") for each in answer[:2]] == [7, 8]
            assert [each["files"] for each in answer] == [4, 4, 0]
            assert answer[-1]["end"] == 4711
            assert giver.steps == ["back"]
            await channel.send({"taken": True})
            await until(lambda: giver.steps == ["back", "over"])
            assert giver.log.about("handed over")
            with pytest.raises(OSError, match="refused"):
                asking(place)
            assert ended == []
        await until(lambda: ended == ["the successor has ended"])


async def test_a_successor_that_is_to_end_says_so(giver: Giver, place: Path) -> None:
    async with giver.serving(place) as ended:
        with asking(place) as channel:
            await ask(channel, pages=True)
            await channel.send({"taken": True})
            await until(lambda: giver.steps == ["back", "over with pages"])
            await channel.send({"whatever": 1})
            await channel.send({"leaving": True})
            await until(lambda: ended == ["the successor is to end"])


@pytest.mark.parametrize("last", [None, {"taken_not": 1}])
async def test_a_successor_that_fails_leaves_all_as_it_was(
    giver: Giver, place: Path, last: dict[str, object] | None
) -> None:
    async with giver.serving(place):
        for _ in range(2):
            giver.steps.clear()
            with asking(place) as channel:
                await ask(channel)
                if last is not None:
                    await channel.send(last)
            await until(lambda: giver.steps == ["back", "up"])
        with asking(place) as channel:
            await ask(channel)
            await channel.send({"taken": True})
            await until(lambda: giver.steps[-1] == "over")


async def test_one_that_does_not_take_over_in_time_fails(
    giver: Giver, place: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with giver.serving(place):
        with asking(place) as channel:
            await ask(channel)
            assert await channel.receive() is None
            assert giver.steps == ["back", "up"]
            assert trio.current_time() == pytest.approx(TAKEN_SECONDS, abs=0.1)
        assert giver.log.about("did not take over in time")


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"ask": 99}, f"it speaks version {VERSION}"), ({"pins": "/elsewhere"}, f"its pins are {PINS}")],
)
async def test_a_stranger_is_refused(giver: Giver, place: Path, changes: dict[str, object], why: str) -> None:
    async with giver.serving(place):
        with asking(place) as channel:
            [answer] = await ask(channel, **changes)
            assert why in str(answer["refused"])
        assert giver.steps == []
        assert giver.log.about("handover failed")


async def test_garbage_and_haste_cost_nothing(giver: Giver, place: Path) -> None:
    async with giver.serving(place):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            asking(place).close()
            await wait_all_tasks_blocked()
        with asking(place) as channel:
            socket.send_fds(channel._sock, [b"no json"], [0, 1])
            assert await channel.receive() is None
        await wait_all_tasks_blocked()
        assert giver.steps == []
        assert len(os.listdir("/proc/self/fd")) == before


async def test_one_that_cannot_be_replaced_now_stays(giver: Giver, place: Path) -> None:
    giver.broken = True
    async with giver.serving(place):
        with asking(place) as channel:
            assert await ask(channel) == []
        assert giver.steps == ["back"]


async def test_where_there_is_no_place_for_a_socket_it_says_so_and_serves(
    giver: Giver, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    async with giver.serving(tmp_path / "file" / "n1.sock") as ended:
        await wait_all_tasks_blocked()
        assert giver.log.about("set ZTUNNEL_RUN_DIR")
        assert ended == []


async def test_the_socket_of_a_later_one_stays(giver: Giver, place: Path) -> None:
    later = Giver()
    async with later.serving(place):
        async with giver.serving(place):
            other = replace_by_file(place)
        assert inode(place) == other
    later.close()
