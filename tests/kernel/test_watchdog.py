"""A thread that stands still, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ztunnel.kernel.watchdog import Watchdog

pytestmark = pytest.mark.timeout(60)

PROGRAM = """
import sys, threading, time
from ztunnel.kernel.watchdog import Watchdog

def hang():
    while True: pass

with Watchdog(stacks_seconds=0.5, exit_seconds={exit}, hang_seconds=3.0 + {exit}) as watchdog:
    threading.Thread(target=watchdog.observe, daemon=True).start()
    print("begun", flush=True)
    {body}
"""


def started(body: str, exit_seconds: float) -> subprocess.Popen[str]:
    program = PROGRAM.format(body=body, exit=exit_seconds)
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", program], text=True, stdout=pipe, stderr=pipe)
    assert process.stdout
    assert process.stdout.readline() == "begun\n"
    return process


IN_PYTHON, IN_C = "hang()", "import ctypes; ctypes.PyDLL(None).pause()"  # which holds the interpreter


@pytest.mark.parametrize("body", [IN_PYTHON, IN_C])
def test_one_that_hangs_tells_where_and_exits(body: str) -> None:
    begun = time.monotonic()
    with started(body, 2.0) as process:
        _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert time.monotonic() - begun < 20
    assert said.count("in hang") == (2 if body == IN_PYTHON else 0)  # when it was noticed, and at the end
    if body == IN_PYTHON:
        assert said.count("the main thread has stood still for") == 2
    else:  # nobody but a C thread could tell
        assert "Timeout (0:00:05)!" in said


def test_before_it_exits_it_is_written_down() -> None:
    body = "watchdog.before_exit = lambda: print('written', flush=True); hang()"
    with started(body, 1.0) as process:
        out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "written\n")


def test_one_that_goes_on_is_counted_and_lives() -> None:
    body = "time.sleep(1.5); print(watchdog.beat() >= 1.5, watchdog.stalls)"
    with started(body, 30.0) as process:
        out, said = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "True 1\n")
    assert said.count("the main thread has stood still for") == 1


def test_one_that_was_stopped_for_longer_than_it_may_stand_still_goes_on() -> None:
    body = "input(); print(watchdog.beat() > 1, watchdog.stalls)"
    program = PROGRAM.format(body=body, exit=2.5)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", program], text=True, stdin=pipe, stdout=pipe, stderr=pipe
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        os.kill(process.pid, signal.SIGSTOP)
        begun = time.monotonic()
        while time.monotonic() - begun < 3:
            assert process.poll() is None
        os.kill(process.pid, signal.SIGCONT)
        out, _ = process.communicate("\n", timeout=30)
    assert out == "True 1\n"
    assert process.returncode == 0


def test_outside_of_it_nothing_is_watched_and_no_thread_is_left() -> None:
    with Watchdog(exit_seconds=0.5) as watchdog:
        thread = threading.Thread(target=watchdog.observe)
        thread.start()
        assert watchdog.beat() == 0.0
    thread.join(5)
    assert not thread.is_alive()
    begun = time.monotonic()
    while time.monotonic() - begun < 0.7:  # we would have ended
        os.sched_yield()
    assert watchdog.stalls == 0
