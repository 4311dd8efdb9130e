"""What comes and goes in directories is told of, on the file systems that matter."""

from __future__ import annotations

import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.lab import unique
from ztunnel.kernel import cgroup
from ztunnel.kernel.inotify import Inotify

PLACES = ["tmp", "cgroup", "bpffs"]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """An empty directory on a file system of that kind."""
    parents = {"tmp": lambda: tmp_path, "cgroup": cgroup.find_root, "bpffs": lambda: Path("/sys/fs/bpf")}
    made = parents[request.param]() / unique()
    made.mkdir()
    yield made
    for left in (*made.iterdir(), made):
        if left.is_dir():
            left.rmdir()


@pytest.fixture
def inotify() -> Iterator[Inotify]:
    with Inotify() as made:
        yield made


def told(inotify: Inotify) -> bool:
    """Whether something was told; it is forgotten then."""
    select.select([inotify], [], [], 3.0)
    return inotify.drain()


@pytest.mark.root
@pytest.mark.parametrize("place", PLACES, indirect=True)
def test_a_directory_that_comes_or_goes_is_told_of(place: Path, inotify: Inotify) -> None:
    inotify.watch_only([str(place)])
    assert not inotify.drain()
    (place / "a").mkdir()
    assert told(inotify)
    assert not inotify.drain()
    (place / "a").rmdir()
    assert told(inotify)


@pytest.mark.root
@pytest.mark.parametrize("place", ["tmp", "bpffs"], indirect=True)
def test_a_new_name_is_told_of(place: Path, inotify: Inotify) -> None:
    (place / "a").mkdir()
    inotify.watch_only([str(place)])
    (place / "a").rename(place / "b")
    assert told(inotify)


@pytest.mark.parametrize("place", ["tmp"], indirect=True)
def test_only_what_is_wanted_is_watched(place: Path, inotify: Inotify) -> None:
    for name in "ab":
        (place / name).mkdir()
    inotify.watch_only([str(place / "a"), str(place / "none")])
    inotify.watch_only([str(place / "b")])
    inotify.drain()
    (place / "a/x").mkdir()
    assert not inotify.drain()
    (place / "b/x").mkdir()
    assert told(inotify)
    for left in ("a/x", "b/x"):
        (place / left).rmdir()
    for left in "ab":
        (place / left).rmdir()


@pytest.mark.parametrize("place", ["tmp"], indirect=True)
def test_a_directory_made_anew_is_watched_again(place: Path, inotify: Inotify) -> None:
    (place / "a").mkdir()
    inotify.watch_only([str(place / "a")])
    (place / "a").rmdir()
    assert told(inotify)
    (place / "a").mkdir()
    inotify.watch_only([str(place / "a")])
    inotify.drain()
    (place / "a/x").mkdir()
    assert told(inotify)
    (place / "a/x").rmdir()
