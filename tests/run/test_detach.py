"""Which pods an operator has taken out: whole files, and nothing of what is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ztunnel.run.detach import Detached, Detachments

PINS = Path("/sys/fs/bpf/ztunnel/n1")


@pytest.fixture
def made(tmp_path: Path) -> Detachments:
    return Detachments(tmp_path / "run", PINS)


def test_what_was_detached_is_so_until_it_is_attached(made: Detachments, tmp_path: Path) -> None:
    other = Detachments(tmp_path / "run", PINS)  # the proxy's
    assert not other.read()
    made.write(Detached(pods=frozenset({"shop/a", "shop/b"})))
    assert "shop/a" in other.read()
    assert "shop/c" not in other.read()
    made.write(Detached(all=True))
    assert "shop/c" in other.read()
    made.write(Detached())
    assert not other.read()
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [b"", b"no json", b"[]", b"17", b'{"all": 1}', b'{"pods": 3}', b'{"pods": [1, null]}', b"[" * 10**5],
)
def test_what_is_no_such_file_lets_nobody_out(made: Detachments, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "n1.detached").write_bytes(text)
    assert made.read() == Detached()


def test_the_pods_are_remembered_by_their_cookies(made: Detachments, tmp_path: Path) -> None:
    assert made.remembered() == {}
    made.remember({4711: "shop/a"})
    made.remember({4711: "shop/a", 4712: "shop/b"})
    assert Detachments(tmp_path / "run", PINS).remembered() == {4711: "shop/a", 4712: "shop/b"}
    place = tmp_path / "run" / "n1.pods"
    before = place.stat().st_ino
    made.remember({4711: "shop/a", 4712: "shop/b"})  # nothing is new
    assert place.stat().st_ino == before
    place.write_text('{"x": 1, "5": 6}')
    assert made.remembered() == {5: "6"}
    made.forget()
    assert os.listdir(tmp_path / "run") == []


def test_where_there_is_no_place_nothing_is_remembered_and_nobody_detached() -> None:
    nowhere = Detachments(Path("/dev/null"), PINS)
    nowhere.remember({1: "shop/a"})
    assert (nowhere.remembered(), nowhere.read()) == ({}, Detached())
    with pytest.raises(OSError, match="/dev/null"):
        nowhere.write(Detached(all=True))
