""".ci/run: what it runs, in which order, and what fails it. make and the kit of clusters are scripts that say
what they are told to."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import turned

ROOT = Path(__file__).parents[1]

# Each call takes the next line of its own list: an exit status, and what it prints; without one it succeeds.
SCRIPT = """#!/usr/bin/env bash
echo "$NAME $*" >>"$SAID"
words=($*)
for word in "${words[@]}"; do case $word in --*) ;; *) list="$LISTS/$NAME-$word"; break ;; esac; done
for word in "${words[@]}"; do case $word in lint | test | test-kube) list="$LISTS/$NAME-$word" ;; esac; done
[ -s "$list" ] || { [ "$NAME" != make ] || echo "=== 7 passed in 1.5s ==="; exit 0; }
read -r status text <"$list"
sed -i 1d "$list"
echo -e "$text"
exit "$status"
"""
FAILED = r"FAILED tests/x.py::test_y - no\n=== 1 failed in 2.5s ==="
LINT, TEST = "make --no-print-directory lint", "make --no-print-directory test PYTEST="
AGAIN = "make --no-print-directory test PYTEST=--last-failed -n 0"
CLUSTER = "make --no-print-directory test-kube PYTEST=--maxfail=0 "
UP, DOWN, STATUS = "kube up --dual-stack", "kube down", "kube status"
BASE = "kube build localhost/ztunnel-test/base:test .build/base"
NO_CLUSTER = "NO CLUSTER WAS TESTED"


class Run:
    """One run, over."""

    def __init__(self, folder: Path, lists: Mapping[str, list[str]], kit: bool = True) -> None:
        checkout, lists_folder, said = folder / "project", folder / "lists", folder / "said"
        (checkout / ".ci").mkdir(parents=True)
        shutil.copy(ROOT / ".ci" / "run", checkout / ".ci" / "run")
        lists_folder.mkdir()
        for name, lines in lists.items():
            (lists_folder / name).write_text("".join(f"{line}\n" for line in lines))
        for name, path in (("make", folder / "bin/make"), ("kube", folder / "shared/kube/kube")):
            if name == "make" or kit:
                path.parent.mkdir(parents=True)
                path.write_text(SCRIPT.replace("$NAME", name))
                path.chmod(0o755)
        said.touch()
        env = {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "SAID": str(said),
            "LISTS": str(lists_folder),
        }
        done = subprocess.run(
            [checkout / ".ci" / "run"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.status, self.text = done.returncode, done.stdout
        self.calls = said.read_text().splitlines()


DOWN_AT_FIRST = {"kube-status": ["3 down", "3 down"]}


def test_all_is_run_and_the_cluster_taken_down_again(tmp_path: Path):
    run = Run(tmp_path, DOWN_AT_FIRST)
    assert run.calls == [LINT, TEST, STATUS, BASE, STATUS, UP, CLUSTER, DOWN]
    assert run.status == 0
    assert run.text.endswith("=== 7 passed in 1.5s ===\n=== 7 passed in 1.5s ===\n")
    assert NO_CLUSTER not in run.text


def test_a_cluster_that_is_up_is_taken_and_left(tmp_path: Path):
    run = Run(tmp_path, {})
    assert run.calls == [LINT, TEST, STATUS, BASE, STATUS, CLUSTER]
    assert run.status == 0


@pytest.mark.parametrize(
    ("lists", "calls", "status"),
    [
        ({"make-lint": ["2 E501"]}, [LINT], 1),
        ({"make-test": [f"2 {FAILED}", f"2 {FAILED}"]}, [LINT, TEST, AGAIN], 2),
        ({"make-test": ["2 no compiler"]}, [LINT, TEST], 2),
        ({"make-test": [f"2 {FAILED}"]}, [LINT, TEST, AGAIN, STATUS, BASE, STATUS, CLUSTER], 0),
    ],
    ids=["lint", "a test, twice", "no tests at all", "a test, once"],
)
def test_what_fails_before_there_is_a_cluster(
    tmp_path: Path, lists: Mapping[str, list[str]], calls: list[str], status: int
):
    run = Run(tmp_path, lists)
    assert run.calls == calls
    assert run.status == status


def test_a_test_of_the_cluster_that_fails_twice_fails_the_run(tmp_path: Path):
    run = Run(tmp_path, {**DOWN_AT_FIRST, "make-test-kube": [f"2 {FAILED}", f"2 {FAILED}"]})
    again = [DOWN, STATUS, f"{CLUSTER}--last-failed"]
    assert run.calls == [LINT, TEST, STATUS, BASE, STATUS, UP, CLUSTER, *again, DOWN]
    assert run.status == 2
    assert NO_CLUSTER not in run.text
    assert "=== 1 failed in 2.5s ===" in run.text.splitlines()[-2:]


def test_those_that_failed_are_run_once_more_on_a_cluster_made_anew(tmp_path: Path):
    lists = {"kube-status": ["3 down", "3 down", "3 down"], "make-test-kube": [f"2 {FAILED}"]}
    run = Run(tmp_path, lists)
    assert run.calls[6:] == [CLUSTER, DOWN, STATUS, UP, f"{CLUSTER}--last-failed", DOWN]
    assert run.status == 0


def test_all_of_them_are_run_again_where_none_is_named(tmp_path: Path):
    run = Run(tmp_path, {**DOWN_AT_FIRST, "make-test-kube": ["2 left behind: namespace x"]})
    assert [each for each in run.calls if each.startswith(CLUSTER)] == [CLUSTER, CLUSTER]
    assert run.status == 0


def test_a_cluster_that_is_lost_between_the_two_fails_the_run(tmp_path: Path):
    lists = {"kube-status": ["0 up", "0 up", "3 down"], "make-test-kube": [f"2 {FAILED}"]}
    run = Run(tmp_path, {**lists, "kube-up": ["1 no", "1 no"]})
    assert run.status == 1


@pytest.mark.parametrize(
    ("lists", "calls", "reason"),
    [
        (
            {"kube-up": ["1 cgroup v1 is not here", "1 it still is not here"]},
            [STATUS, BASE, STATUS, UP, DOWN, UP, DOWN],
            "it still is not here",
        ),
        (
            {"kube-build": ["1 cannot fetch buildah"]},
            [STATUS, BASE, DOWN],
            "cannot fetch buildah",
        ),
    ],
    ids=["no cluster", "no images"],
)
def test_a_machine_that_cannot_have_a_cluster_is_said_loudly_and_fails_nothing(
    tmp_path: Path, lists: Mapping[str, list[str]], calls: list[str], reason: str
):
    run = Run(tmp_path, {**DOWN_AT_FIRST, **lists})
    assert run.calls == [LINT, TEST, *calls]
    assert run.status == 0
    loud = run.text[run.text.index(NO_CLUSTER) :]
    assert reason in loud
    assert loud.endswith("=== 7 passed in 1.5s ===\n")


def test_a_cluster_that_comes_up_the_second_time_is_tested(tmp_path: Path):
    run = Run(tmp_path, {**DOWN_AT_FIRST, "kube-up": ["1 no"]})
    assert run.calls[2:] == [STATUS, BASE, STATUS, UP, DOWN, UP, CLUSTER, DOWN]
    assert run.status == 0


def test_without_the_kit_it_is_said_loudly(tmp_path: Path):
    run = Run(tmp_path, {}, kit=False)
    assert run.calls == [LINT, TEST]
    assert run.status == 0
    assert f"{NO_CLUSTER}" in run.text
    assert "../shared/kube/kube is not here" in run.text


@pytest.mark.parametrize("workers", [1, 2, 4, 40])
def test_each_worker_reads_all_folders_and_begins_elsewhere(workers: int):
    folders = [f"tests/{letter}" for letter in "abcdefghij"]
    orders = [turned(folders, f"gw{number}", workers) for number in range(workers)]
    assert all(sorted(order) == folders for order in orders)
    assert len({order[0] for order in orders}) == min(workers, len(folders))


def test_make_has_what_is_read_compiled_once(tmp_path: Path):
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text() + "\nprinted:\n\t@env\n")
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(["make", "-s", "printed"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert "\nCOMPILE=" in done.stdout
    assert "PYTHONDONTWRITEBYTECODE" not in done.stdout
