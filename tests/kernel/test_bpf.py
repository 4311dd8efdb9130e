from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.lab import PINS, unique
from ztunnel.kernel import bpf, cgroup, probe
from ztunnel.kernel.bpf import Map, MapSpec, Program

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

HASH, ARRAY, PERCPU_ARRAY = 1, 2, 6
CGROUP_SOCK_ADDR, CONNECT4 = 18, 10
ALLOW = bytes.fromhex("b7000000010000009500000000000000")  # r0 = 1; exit
FALL_OFF = bytes.fromhex("b700000001000000")


@pytest.fixture
def numbers() -> Iterator[Map]:
    with Map(bpf.map_create("zt_numbers", MapSpec(HASH, 4, 8, 8, 0))) as made:
        yield made


def key(number: int) -> bytes:
    return number.to_bytes(4, "little")


def value(number: int) -> bytes:
    return number.to_bytes(8, "little")


def test_values_are_put_read_taken_and_dropped(numbers: Map) -> None:
    assert numbers.get(key(1)) is None
    numbers.put(key(1), value(10))
    assert numbers.get(key(1)) == value(10)
    assert numbers.take(key(1)) == value(10)
    assert numbers.take(key(1)) is None
    numbers.put(key(1), value(11))
    assert numbers.drop(key(1))
    assert not numbers.drop(key(1))


def test_flags_hold_for_one_put(numbers: Map) -> None:
    numbers.put(key(1), value(1), bpf.NOEXIST)
    with pytest.raises(FileExistsError):
        numbers.put(key(1), value(2), bpf.NOEXIST)
    numbers.put(key(1), value(2))
    with pytest.raises(FileNotFoundError):
        numbers.put(key(2), value(2), bpf.EXIST)
    assert numbers.get(key(1)) == value(2)


def test_all_keys_are_listed_and_may_be_dropped_meanwhile(numbers: Map) -> None:
    assert list(numbers) == []
    for number in range(8):
        numbers.put(key(number), value(number))
    assert sorted(numbers) == sorted(map(key, range(8)))
    for each in numbers:
        numbers.drop(each)
    assert list(numbers) == []


def test_a_full_map_says_so(numbers: Map) -> None:
    for number in range(8):
        numbers.put(key(number), value(number))
    with pytest.raises(OSError, match="Argument list too long"):
        numbers.put(key(9), value(9))


def test_a_call_that_the_map_does_not_know_is_an_error() -> None:
    with Map(bpf.map_create("zt_array", MapSpec(ARRAY, 4, 8, 1, 0))) as array:
        assert array.get(key(0)) == value(0)
        with pytest.raises(OSError, match="bpf map: Unknown error 524"):  # ENOTSUPP
            array.take(key(0))


def test_a_value_of_a_per_cpu_map_has_a_part_for_each_cpu() -> None:
    with Map(bpf.map_create("zt_percpu", MapSpec(PERCPU_ARRAY, 4, 4, 1, 0))) as array:
        found = array.get(key(0))
        assert found is not None
        assert len(found) == 8 * bpf.possible_cpus()


@pytest.mark.parametrize(("listing", "cpus"), [("0", 1), ("0-3", 4), ("0-1,4-7", 8)])
def test_possible_cpus_are_counted_to_the_last(tmp_path: Path, listing, cpus) -> None:
    (tmp_path / "possible").write_text(f"{listing}\n")
    assert bpf.possible_cpus(str(tmp_path / "possible")) == cpus


def test_a_map_knows_what_it_was_made_from(numbers: Map) -> None:
    assert bpf.map_spec(numbers.fd) == numbers.spec == MapSpec(HASH, 4, 8, 8, 0)


def test_a_refused_program_shows_the_verifiers_log() -> None:
    with pytest.raises(OSError, match=r"last insn is not an exit or jmp"):
        bpf.prog_load(Program("zt_bad", CGROUP_SOCK_ADDR, CONNECT4, FALL_OFF))


@pytest.fixture
def place() -> Iterator[Path]:
    directory = PINS / unique()
    probe.require_bpffs(directory)
    directory.mkdir(parents=True)
    yield directory
    for each in directory.iterdir():
        each.unlink()
    directory.rmdir()


def test_a_pinned_map_is_the_same_map(numbers: Map, place: Path) -> None:
    numbers.put(key(1), value(1))
    bpf.pin(numbers.fd, place / "map")
    with Map(bpf.open_pinned(place / "map")) as again:
        assert again.get(key(1)) == value(1)
    with Map(bpf.map_create("zt_other", MapSpec(HASH, 4, 8, 8, 0))) as other:
        bpf.set_pinned(other.fd, place / "map")
    with Map(bpf.open_pinned(place / "map")) as again:
        assert list(again) == []
    with pytest.raises(FileNotFoundError, match="nothing"):
        bpf.open_pinned(place / "nothing")


def test_a_link_keeps_its_id_when_its_program_changes_and_ends_when_it_is_removed(place: Path) -> None:
    directory = cgroup.create(cgroup.find_root() / unique())
    descriptor = os.open(directory, os.O_RDONLY)
    first, second = (bpf.prog_load(Program(f"zt_{n}", CGROUP_SOCK_ADDR, CONNECT4, ALLOW)) for n in (1, 2))
    try:
        link = bpf.link_create(first, descriptor, CONNECT4)
        bpf.pin(link, place / "link")
        before = bpf.link_info(link)
        assert (before.program, before.target, before.hook) == (
            bpf.object_id(first),
            cgroup.cgroup_id(directory),
            CONNECT4,
        )
        bpf.link_update(link, second)
        after = bpf.link_info(link)
        assert (after.id, after.program) == (before.id, bpf.object_id(second))
        bpf.remove_link(place / "link")
        bpf.remove_link(place / "link")
        assert bpf.link_info(link).target == 0
        assert list(place.iterdir()) == []
        bpf.close(link)
    finally:
        for fd in (first, second, descriptor):
            bpf.close(fd)
        cgroup.remove(directory)


def test_the_verifiers_steps_are_known() -> None:
    program = bpf.prog_load(Program("zt_two", CGROUP_SOCK_ADDR, CONNECT4, ALLOW))
    assert bpf.verified_instructions(program) == 2
    bpf.close(program)
