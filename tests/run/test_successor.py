"""A proxy that takes over from another one: all that it had, or nothing, and no descriptor too many."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from tests.run.givers import PINS, Giver, call
from tests.run.parts import until
from ztunnel.errors import Unsupported
from ztunnel.redirect.held import push_held
from ztunnel.run.incumbent import TAKEN_SECONDS
from ztunnel.run.successor import Inherited, serving, take_over


@pytest.fixture
def giver() -> Iterator[Giver]:
    made = Giver()
    yield made
    made.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "n1.sock"


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_what_waits_in_the_backlogs_is_not_lost(giver: Giver, place: Path) -> None:
    ends = [each.getsockname() for listeners in giver.listeners.values() for each in listeners.all]
    giver.calls = [call(number) for number in range(300)]
    async with giver.serving(place) as ended:
        assert serving(place) == os.getpid()
        callers = [socket.create_connection(end) for end in ends for _ in range(30)]
        inherited = await take_over(place, PINS, False)
        await inherited.tell("taken")
        await until(lambda: giver.steps == ["back", "over"])
        assert [
            each.getsockname() for listeners in inherited.listeners.values() for each in listeners.all
        ] == ends
        assert sorted(inherited.listeners) == [7, 8]
        for caller in callers:
            caller.sendall(b"x")
        for listeners in inherited.listeners.values():
            for each in listeners.all:
                for _ in range(30):
                    accepted, _ = each.accept()
                    assert accepted.recv(1) == b"x"
                    accepted.close()
        assert [*map(push_held, inherited.calls)] == [*map(push_held, giver.calls)]
        assert inherited.since_ns == 4711
        assert inherited.pages == ()
        await inherited.tell("leaving")
        await until(lambda: ended == ["the successor is to end"])
        inherited.close()
    for caller in callers:
        caller.close()


async def test_the_pages_come_with_it_where_they_are_wanted(giver: Giver, place: Path) -> None:
    ends = [each.getsockname() for each in giver.pages]
    async with giver.serving(place):
        inherited = await take_over(place, PINS, True)
        assert [each.getsockname() for each in inherited.pages] == ends
        inherited.close()
        await until(lambda: giver.steps == ["back", "up"])


async def test_where_nobody_is_there_is_nothing_to_inherit(place: Path) -> None:
    assert serving(place) == 0
    inherited = await take_over(place, PINS, True)
    assert inherited == Inherited()
    await inherited.tell("taken")


def test_what_a_crash_left_is_nobody(place: Path) -> None:
    place.touch()
    assert serving(place) == 0
    place.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
        stale.bind(str(place))
    assert serving(place) == 0


async def test_one_that_many_ask_is_asked_again(giver: Giver, place: Path) -> None:
    with ExitStack() as others:
        listener = others.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listener.bind(str(place))
        listener.listen(0)
        for _ in range(2):
            other = others.enter_context(
                socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
            )
            with suppress(BlockingIOError):
                other.connect(str(place))
        assert serving(place) == -1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_over, place, PINS, False)
            await wait_all_tasks_blocked()
            listener.accept()[0].close()
            await trio.lowlevel.wait_readable(listener)
            listener.accept()[0].close()


async def test_a_predecessor_that_waits_no_longer_is_not_served_beside(
    giver: Giver, place: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with giver.serving(place):
        inherited = await take_over(place, PINS, False)
        await trio.sleep(TAKEN_SECONDS + 1)
        assert giver.steps == ["back", "up"]
        with pytest.raises(Unsupported, match="did not wait and goes on"):
            await inherited.tell("taken")
        inherited.close()


async def test_one_that_has_died_since_it_gave_all_needs_no_answer(giver: Giver, place: Path) -> None:
    async with giver.serving(place):
        inherited = await take_over(place, PINS, False)
    await inherited.tell("taken")
    assert len(inherited.listeners) == 2
    inherited.close()


async def test_one_of_other_pins_is_no_predecessor(giver: Giver, place: Path) -> None:
    async with giver.serving(place):
        with pytest.raises(Unsupported, match=f"hands nothing over: its pins are {PINS}"):
            await take_over(place, Path("/elsewhere"), False)


Answer = Callable[[socket.socket], None]


def said(*packets: tuple[bytes, Sequence[int]]) -> Answer:
    def answer(sock: socket.socket) -> None:
        for packet, fds in packets:
            socket.send_fds(sock, [packet], fds)

    return answer


async def answered(place: Path, answer: Answer) -> None:
    """Ask somebody who answers like this, and ends."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(place))
        listener.listen()
        before = files()

        async def play() -> None:
            await trio.lowlevel.wait_readable(listener)
            sock, _ = listener.accept()
            with sock:
                await trio.lowlevel.wait_readable(sock)
                sock.recv(1 << 16)
                answer(sock)

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(play)
                inherited = await take_over(place, PINS, True)
            assert inherited == Inherited()
        finally:
            assert files() == before


HOSTILE = {
    "no json": said((b"garbage", [0])),
    "not three": said((b'{"pod": 7}', [0])),
    "no listeners": said((b'{"pod": 7}', [0, 1, 2])),
    "no number": said((b'{"calls": []}', []), (b'{"pod": "x"}', [])),
    "a negative number": said((b'{"end": -1}', [])),
    "no call": said((b'{"calls": ["AAAA"]}', [0])),
    "no base64": said((b'{"calls": ["?"]}', [])),
    "a refusal with descriptors": said((b'{"refused": "no"}', [0, 1])),
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_predecessor_that_talks_nonsense_is_refused_and_leaves_nothing(
    place: Path, answer: Answer
) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(Unsupported, match="hands nothing over")):
        await answered(place, answer)


async def test_one_that_dies_in_the_middle_is_as_if_it_had_never_been(place: Path) -> None:
    await answered(place, said((b'{"calls": []}', [])))


async def test_one_that_stands_still_is_not_waited_for_without_end(
    place: Path, autojump_clock: trio.testing.MockClock
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(place))
        listener.listen()
        assert await take_over(place, PINS, True) == Inherited()
