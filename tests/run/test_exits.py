"""The count of exits outlives the processes that it counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from ztunnel.run.exits import StallExits

PINS = Path("/sys/fs/bpf/ztunnel/n1")


def test_each_exit_counts_over_processes(tmp_path: Path) -> None:
    assert StallExits(tmp_path, PINS).count() == 0
    for number in range(1, 12):
        StallExits(tmp_path, PINS).add()
        assert StallExits(tmp_path, PINS).count() == number
    assert StallExits(tmp_path, PINS.with_name("n2")).count() == 0
    assert [each.name for each in tmp_path.iterdir()] == ["n1.stalls"]


@pytest.mark.parametrize("text", [b"", b"x", b"-3", b"9" * 1000, b"\xff"])
def test_what_is_no_number_counts_nothing_or_little(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "n1.stalls").write_bytes(text)
    assert StallExits(tmp_path, PINS).count() in (0, 99999999999999999999)


def test_where_there_is_no_place_it_ends_all_the_same() -> None:
    exits = StallExits(Path("/dev/null"), PINS)
    exits.add()
    assert exits.count() == 0
