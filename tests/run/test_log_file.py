"""Files that lines are appended to; `test_outlets` has when they are opened and closed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from ztunnel.run.log_file import LogFile


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_lines_are_appended_and_nobody_else_may_read_the_file(tmp_path: Path) -> None:
    path, before = tmp_path / "log", open_files()
    path.write_text("before\n")
    file = LogFile(str(path))
    file.writer.put("line")
    file.close()
    assert path.read_text() == "before\nline\n"
    assert open_files() == before
    LogFile(str(tmp_path / "new")).close()
    assert (tmp_path / "new").stat().st_mode & 0o7 == 0


async def test_what_is_left_is_written_at_the_end(tmp_path: Path) -> None:
    path, before = tmp_path / "log", open_files()
    file = LogFile(str(path))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(file.run)
        await trio.testing.wait_all_tasks_blocked()
        file.writer.put("last")
        nursery.cancel_scope.cancel()
    assert path.read_text() == "last\n"
    assert open_files() == before


def test_one_that_cannot_be_had_says_so(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        LogFile(str(tmp_path / "none" / "x"))
