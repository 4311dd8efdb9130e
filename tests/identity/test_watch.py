"""The authority of a folder: replaced while it signs by a good set, never by a bad one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.identity.builders import ALICE, NOW, new_key, pem_of
from tests.identity.sets import one_step
from ztunnel.errors import ConfigError
from ztunnel.identity import csr
from ztunnel.identity.plugged_in import CA_KEY
from ztunnel.identity.watch import AuthorityWatch


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "ca"
    folder.mkdir(mode=0o700)
    return folder


def put(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600 if "key" in name else 0o644)


def roots(watch: AuthorityWatch) -> str:
    return watch.authority.sign(csr.create(ALICE).csr_pem, ALICE, 60, NOW)[-1]


class Watched:
    """A watch whose polls a test makes itself, twice for each change."""

    def __init__(self, home: Path, make: bool = True) -> None:
        self.said: list[tuple[str, ...]] = []
        self.watch = AuthorityWatch(home, "cluster.local", lambda: NOW, self.observe, make)

    def observe(self) -> None:
        self.said.append(tuple(fault.message for fault in self.watch.faults))

    async def settle(self) -> None:
        await self.watch.poll()
        await self.watch.poll()


@pytest.fixture
def watched(home: Path) -> Callable[..., Watched]:
    return lambda **options: Watched(home, **options)


async def started(nursery: trio.Nursery, watched: Watched) -> AuthorityWatch:
    await nursery.start(watched.watch.run)
    return watched.watch


@pytest.fixture
def clock():
    """Jumps only when the threads that look at files have had the time to."""
    return trio.testing.MockClock(autojump_threshold=0.05)


async def test_a_root_of_our_own_is_made_and_kept(home, watched, nursery, clock):
    one = watched()
    watch = await started(nursery, one)
    assert roots(watch) == (home / "root-cert.pem").read_text()
    await trio.sleep(5)
    assert one.said == [()]


async def test_a_new_set_is_taken_over_within_a_few_seconds(home, watched, nursery, clock):
    first, second = one_step(), one_step()
    put(home, first.files())
    watch = await started(nursery, watched())
    assert roots(watch) == first.root.pem
    put(home, second.files())
    await trio.sleep(3.5)
    assert roots(watch) == second.root.pem


async def test_a_set_that_is_still_being_written_does_not_count(home, watched, nursery):
    first, second = one_step(), one_step()
    put(home, first.files())
    one = watched()
    watch = await started(nursery, one)
    for name, content in second.files().items():
        put(home, {name: content})
        await watch.poll()
        assert roots(watch) == first.root.pem
    await watch.poll()
    assert roots(watch) == second.root.pem
    assert one.said == [(), ()]


async def test_a_bad_set_is_refused_and_said_once_and_the_old_signs_on(home, watched, nursery):
    found = one_step()
    put(home, found.files())
    one = watched()
    watch = await started(nursery, one)
    put(home, {CA_KEY: pem_of(new_key()).encode()})
    for _ in range(3):
        await one.settle()
    assert roots(watch) == found.root.pem
    assert len(one.said) == 2
    assert "not the key of the first certificate" in one.said[1][0]
    put(home, found.files())
    await one.settle()
    assert one.said[2:] == [()]
    assert watch.faults == ()


async def test_a_set_that_becomes_valid_by_itself_is_taken_over(home, watched, nursery):
    found, one = one_step(), watched()
    put(home, found.files())
    watch = await started(nursery, one)
    early = one_step()
    put(home, early.files())
    watch._now = lambda: NOW - timedelta(days=20_000)
    await one.settle()
    assert "is not valid before" in one.said[1][0]
    watch._now = lambda: NOW
    for _ in range(31):
        await watch.poll()
    assert roots(watch) == early.root.pem
    assert watch.faults == ()


async def test_files_that_vanish_are_a_fault_and_no_new_root_is_made(home, watched, nursery):
    one = watched()
    watch = await started(nursery, one)
    before = roots(watch)
    for name in os.listdir(home):
        (home / name).unlink()
    await one.settle()
    assert roots(watch) == before
    assert "no certificate authority is in it" in one.said[1][0]
    assert os.listdir(home) == []


async def test_a_mounted_secret_is_followed_when_kubelet_swaps_it(home, watched, nursery):
    """`..data` is a link to a folder with a date for a name; the files are links through it, mode 0644."""
    sets = [one_step(), one_step()]
    for number, found in enumerate(sets):
        place = home / f"..2026_{number}"
        place.mkdir()
        for name, content in found.files().items():
            (place / name).write_bytes(content)
    (home / "..data").symlink_to("..2026_0")
    for name in sets[0].files():
        (home / name).symlink_to(f"..data/{name}")
    home.chmod(0o777)
    one = watched(make=False)
    watch = await started(nursery, one)
    assert roots(watch) == sets[0].root.pem
    (home / "..data_tmp").symlink_to("..2026_1")
    (home / "..data_tmp").rename(home / "..data")
    await one.settle()
    assert roots(watch) == sets[1].root.pem


async def test_where_the_operator_s_ca_was_named_and_is_not_there_nothing_is_made(home, watched):
    with pytest.raises(ConfigError, match="no certificate authority is in it"):
        await watched(make=False).watch.run()
    assert os.listdir(home) == []
    home.rmdir()
    with pytest.raises(
        ConfigError, match=r"No such file or directory: a folder with ca-cert\.pem, ca-key\.pem"
    ):
        await watched(make=False).watch.run()
