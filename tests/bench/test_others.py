"""How much of the machine others had."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.others import MOST_CORES, Used, Watch, cores_of_others, parse_cpu, parse_stat

STAT = "cpu  100 20 30 999 5 7 11 40 3 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n"


def test_idle_and_interrupts_are_nobody_s_and_stolen_time_is_others() -> None:
    assert parse_stat(STAT, ticks=100) == pytest.approx(1.9)
    assert parse_cpu("usage_usec 1500000\nuser_usec 1\nsystem_usec 2\n") == 1.5


def test_others_have_what_we_have_not_used() -> None:
    assert cores_of_others(Used(10, 100, 50), Used(12, 103, 52)) == pytest.approx(0.5)
    assert cores_of_others(Used(10, 100, 50), Used(12, 101, 52)) == 0  # ours is counted more finely
    assert cores_of_others(Used(10, 100, 50), Used(10, 101, 50)) == 0


class Machine:
    """Others have so many cores; each look takes as long as `Watch` looks."""

    def __init__(self, *cores: float) -> None:
        self._cores = list(cores)
        self._used = Used(0.0, 0.0, 0.0)
        self.looks = 0

    def use(self) -> Used:
        self.looks += 1
        cores = self._cores.pop(0) if len(self._cores) > 1 else self._cores[0]
        before = self._used
        self._used = Used(before.at + 1, before.everybody + 1 + cores, before.ours + 1)
        return self._used


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.others._LOOK_SECONDS", 0.25)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)


def test_a_round_waits_for_others_and_is_disturbed_by_them() -> None:
    machine = Machine(0, 1, 1, 1, 0, 0, 0, 0)
    watch = Watch(Path(), 30.0, machine.use)
    watch.begin()
    assert machine.looks == 5
    assert not watch.disturbed()
    loud = Machine(0, 0, 0, MOST_CORES + 0.1)
    watch = Watch(Path(), 30.0, loud.use)
    watch.begin()
    assert watch.disturbed()


def test_patience_has_an_end_over_all_rounds() -> None:
    machine = Machine(2)
    watch = Watch(Path(), 30.0, machine.use)
    watch.begin()
    looks = machine.looks
    assert looks == 1 + 2 * (30 / 0.25 + 1)
    watch.begin()
    assert machine.looks == looks + 2
