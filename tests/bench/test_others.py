"""How much of the machine others had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.others import (
    MOST_CORES,
    Used,
    Watch,
    cores_of_others,
    process_seconds,
    processes_of_others,
    read_used,
    stolen_seconds,
)

STAT = "cpu  100 20 30 999 5 7 11 40 3 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n"
PROCESS = "17 (a) b (c) R 1 17 17 0 -1 {flags} 9 9 9 9 100 50 20 30 20 0 1 0 4\n"


def test_what_a_hypervisor_keeps_is_others() -> None:
    assert stolen_seconds(STAT, ticks=100) == 0.4


def test_a_process_counts_with_its_children_and_a_thread_of_the_kernel_does_not() -> None:
    assert process_seconds(PROCESS.format(flags=4194304), ticks=100) == 2.0
    assert process_seconds(PROCESS.format(flags=4194304 | 0x200000), ticks=100) == 0


def test_cores_are_seconds_in_a_time() -> None:
    assert cores_of_others(Used(10, 50), Used(12, 51)) == pytest.approx(0.5)
    assert cores_of_others(Used(10, 50), Used(12, 49)) == 0  # one of them has ended
    assert cores_of_others(Used(10, 50), Used(10, 51)) == 0


def test_others_are_all_but_this_process_and_those_of_the_laboratory(tmp_path: Path) -> None:
    code = "import time\nwhile time.process_time() < 0.15: pass\nprint(flush=True)\ninput()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as child:
        child.stdout.readline()
        others = processes_of_others(tmp_path)
        assert child.pid in others
        assert os.getpid() not in others
        assert process_seconds(Path(f"/proc/{child.pid}/stat").read_text()) >= 0.1
        assert read_used(tmp_path).others >= 0.1
        (tmp_path / "pod").mkdir()
        (tmp_path / "pod" / "cgroup.procs").write_text(f"{child.pid}\n")
        assert child.pid not in processes_of_others(tmp_path)
        child.communicate("\n")


class Machine:
    """Others have so many cores; each look takes a second."""

    def __init__(self, *cores: float) -> None:
        self._cores = list(cores)
        self._used = Used(0.0, 0.0)
        self.looks = 0

    def use(self) -> Used:
        self.looks += 1
        cores = self._cores.pop(0) if len(self._cores) > 1 else self._cores[0]
        self._used = Used(self._used.at + 1, self._used.others + cores)
        return self._used


@pytest.fixture
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)


@pytest.mark.usefixtures("no_sleep")
def test_a_round_waits_for_others_and_is_disturbed_by_them() -> None:
    machine = Machine(0, 1, 1, 1, 0, 0, 0, 0)
    watch = Watch(machine.use, 30.0)
    watch.begin()
    assert machine.looks == 5
    assert not watch.disturbed()
    loud = Machine(0, 0, 0, MOST_CORES + 0.1)
    watch = Watch(loud.use, 30.0)
    watch.begin()
    assert watch.disturbed()


@pytest.mark.usefixtures("no_sleep")
def test_patience_has_an_end_over_all_rounds() -> None:
    machine = Machine(2)
    watch = Watch(machine.use, 30.0)
    watch.begin()
    looks = machine.looks
    assert looks == 1 + 2 * (30 / 0.25 + 1)
    watch.begin()
    assert machine.looks == looks + 2
