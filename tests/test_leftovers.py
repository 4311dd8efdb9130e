"""The check that a run leaves nothing, tried on a machine where it does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests import leftovers


def run(*command: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "tests.leftovers", *command]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def test_a_run_that_leaves_nothing_ends_as_its_command_does() -> None:
    assert run("true").returncode == 0
    assert run("sh", "-c", "exit 3").returncode == 3


def test_a_process_that_outlives_the_run_is_named() -> None:
    ended = run("sh", "-c", "sleep 30 >/dev/null 2>&1 & echo $!")
    pid = int(ended.stdout)
    try:
        assert ended.returncode == 1
        assert f"left behind: process {pid} sleep 30" in ended.stderr
    finally:
        os.kill(pid, 9)


@pytest.mark.root
def test_a_namespace_that_outlives_the_run_is_named() -> None:
    name = "zt-left-behind-by-a-test"
    try:
        ended = run("ip", "netns", "add", name)
        assert ended.returncode == 1
        assert f"left behind: namespace {name}" in ended.stderr
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_the_numbers_in_a_name_may_be_the_ids_of_its_makers() -> None:
    assert leftovers.pids_in("zt-4711-n2") == {4711, 2}
