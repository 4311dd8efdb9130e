"""Lines reach the descriptor whole and in order, and nothing that it does makes the proxy wait."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.telemetry.export import AccessLog, LineWriter, Log
from ztunnel.telemetry.figures import Figures
from ztunnel.telemetry.level import Level, Levels

TIME = 1_787_220_000_123_456_000  # 2026-08-20T10:00:00.123456Z


class Pipe:
    """A pipe that holds one page, so that it is soon full. Its writing end blocks, as standard output."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self.reading, False)

    def read(self) -> bytes:
        try:
            return os.read(self.reading, 1 << 20)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        for fd in (self.reading, self.writing):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def drain(writer: LineWriter, pipe: Pipe) -> bytes:
    octets = b""
    while not writer.flush():
        octets += pipe.read()
    return octets + pipe.read()


def test_lines_come_out_whole_and_in_order_through_a_pipe_that_is_too_small(pipe):
    writer = LineWriter(pipe.writing)
    lines = [f"{number} {'x' * (number % 700)}" for number in range(500)]
    for line in lines:
        assert writer.put(line)
    assert drain(writer, pipe).decode().splitlines() == lines


def test_a_full_pipe_does_not_block_and_what_was_written_in_part_is_completed(pipe):
    writer = LineWriter(pipe.writing)
    long = "y" * 10_000
    writer.put(long)
    writer.put("after")
    assert not writer.flush()
    assert not writer.flush()
    assert drain(writer, pipe).decode() == f"{long}\nafter\n"
    assert writer.errors == 0


def test_a_full_buffer_drops_the_newest_and_says_so(pipe):
    writer = LineWriter(pipe.writing, limit=10)
    taken = [writer.put(str(number)) for number in range(15)]
    assert taken == [True] * 10 + [False] * 5
    assert drain(writer, pipe).decode().splitlines() == [str(number) for number in range(10)]
    assert writer.put("again")


def test_urgent_lines_have_places_of_their_own(pipe):
    writer = LineWriter(pipe.writing, limit=1)
    writer.put("a")
    assert not writer.put("b")
    assert writer.put("c", urgent=True)
    assert sum(writer.put("d", urgent=True) for _ in range(5000)) == 999


def test_a_reader_that_went_away_is_counted_and_harms_nobody(pipe):
    writer = LineWriter(pipe.writing, limit=3)
    os.close(pipe.reading)
    pipe.reading = -1
    for number in range(5):
        writer.put(str(number))
        assert not writer.flush()
    assert writer.errors == 5
    assert not writer.put("full")


def test_a_full_disk_is_counted_and_nothing_is_lost_that_fits_the_buffer(tmp_path):
    with open("/dev/full", "wb", buffering=0) as full:
        writer = LineWriter(full.fileno())
        writer.put("a")
        assert not writer.flush()
        assert writer.errors == 1
        with open(tmp_path / "log", "wb", buffering=0) as log:
            os.dup2(log.fileno(), full.fileno())
            assert writer.flush()
    assert (tmp_path / "log").read_text() == "a\n"


def test_a_file_takes_large_batches(tmp_path):
    with open(tmp_path / "log", "wb", buffering=0) as log:
        writer = LineWriter(log.fileno())
        for number in range(10_000):
            writer.put(f"{number:0500d}")
        while not writer.flush():
            assert writer.errors == 0
    assert (tmp_path / "log").stat().st_size == 10_000 * 501


def test_a_descriptor_that_does_not_block_is_as_good(pipe):
    os.set_blocking(pipe.writing, False)
    writer = LineWriter(pipe.writing)
    lines = ["z" * 3000] * 20
    for line in lines:
        writer.put(line)
    assert drain(writer, pipe).decode().splitlines() == lines


@given(st.lists(st.text(st.characters(exclude_characters="\r\n"), max_size=3000), max_size=30))
def test_whatever_the_lines_are_the_octets_are_theirs(lines):
    pipe = Pipe()
    try:
        writer = LineWriter(pipe.writing)
        for line in lines:
            writer.put(line)
        expected = b"".join((line + "\n").encode("utf-8", "backslashreplace") for line in lines)
        assert drain(writer, pipe) == expected
    finally:
        pipe.close()


async def test_a_writer_without_lines_sleeps_until_one_is_put_by_whatever_thread(pipe, autojump_clock):
    class Counting(LineWriter):
        flushed = 0

        def flush(self) -> bool:
            self.flushed += 1
            return super().flush()

    writer = Counting(pipe.writing)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        await trio.sleep(60)
        assert writer.flushed == 0
        for count, put in enumerate((writer.put, partial(trio.to_thread.run_sync, writer.put)), 1):
            answer = put("a line")
            if count == 2:
                await answer
            await trio.sleep(0.3)
            assert writer.flushed == count
            assert pipe.read() == b"a line\n"
        nursery.cancel_scope.cancel()


async def test_the_writer_flushes_by_itself_and_once_more_at_the_end(pipe, autojump_clock):
    writer = LineWriter(pipe.writing)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        writer.put("first")
        await trio.sleep(0.2)
        assert pipe.read() == b"first\n"
        writer.put("last")
        nursery.cancel_scope.cancel()
    assert pipe.read() == b"last\n"


async def test_a_reader_that_never_reads_does_not_keep_the_process_for_more_than_a_second(
    pipe, autojump_clock
):
    writer = LineWriter(pipe.writing)
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        writer.put("x" * 10_000)
        await trio.sleep(0.2)
        nursery.cancel_scope.cancel()
    assert trio.current_time() - started == pytest.approx(1.2)


def test_the_access_log_counts_what_it_drops(pipe):
    writer = LineWriter(pipe.writing, limit=2)
    log, figures = AccessLog(writer, Levels()), Figures()
    log.register(figures)
    for _ in range(5):
        log.write("line")
    assert {one.name: one.samples[0][1] for one in figures.families()} == {
        "ztunnel_access_log_dropped_total": 3,
        "ztunnel_log_write_errors_total": 0,
    }


def test_the_access_log_tells_what_it_wants(pipe):
    levels = Levels("debug,access=error")
    log = AccessLog(LineWriter(pipe.writing), levels)
    assert not log.wants(Level.INFO)
    assert log.wants(Level.ERROR)
    levels.change("access=debug")
    assert log.wants(Level.DEBUG)


def test_a_message_has_istios_form(pipe):
    writer = LineWriter(pipe.writing)
    log = Log(writer, Levels(), lambda: TIME)
    log.scoped("xds").info("connected", address="https://a:1", attempt=2)
    log.warn("odd\nname", name="a\x1b")
    assert drain(writer, pipe).decode() == (
        '2026-08-20T10:00:00.123456Z\tinfo\txds\tconnected\taddress="https://a:1" attempt=2\n'
        '2026-08-20T10:00:00.123456Z\twarn\tztunnel\todd\\nname\tname="a\\u{1b}"\n'
    )


def test_a_message_below_its_scopes_level_is_not_written(pipe):
    writer, levels = LineWriter(pipe.writing), Levels("info,xds=error")
    log = Log(writer, levels, lambda: TIME)
    log.debug("no")
    log.trace("no")
    log.scoped("xds").warn("no")
    levels.change("xds=trace")
    log.scoped("xds").trace("yes")
    log.error("yes")
    assert [line.split("\t")[3] for line in drain(writer, pipe).decode().splitlines()] == ["yes", "yes"]


def test_messages_may_be_json(pipe):
    writer = LineWriter(pipe.writing)
    Log(writer, Levels(), lambda: TIME, as_json=True).error("broken", why="x")
    assert json.loads(drain(writer, pipe)) == {
        "level": "error",
        "time": "2026-08-20T10:00:00.123456Z",
        "scope": "ztunnel",
        "message": "broken",
        "why": "x",
    }


def deep() -> None:
    raise KeyError("gone")


def test_a_bug_is_told_with_its_innermost_place_first_each_of_a_group_on_its_own(pipe):
    writer = LineWriter(pipe.writing)
    log = Log(writer, Levels(), lambda: TIME)
    with pytest.raises(KeyError) as caught:
        deep()
    log.bug(ExceptionGroup("two", [caught.value, OSError(5, "broken")]))
    first, second = drain(writer, pipe).decode().splitlines()
    assert "error=\"KeyError: 'gone'\"" in first
    assert first.index(" deep") < first.index(" < ")
    assert "OSError: [Errno 5] broken" in second
