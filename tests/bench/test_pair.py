"""What processes use."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bench.figures import Unmeasured
from bench.pair import cpu_seconds, family, resident_bytes

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
input()
child.communicate(b"\\n")
"""


def test_a_family_is_a_process_and_what_came_of_it() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=pipe, stdout=pipe, text=True) as parent:
        child = int(parent.stdout.readline())
        assert family([parent.pid]) == [parent.pid, child]
        assert resident_bytes([parent.pid, child]) > resident_bytes([parent.pid]) > 1 << 20
        parent.communicate("\n")
    assert family([parent.pid]) == [parent.pid]


def test_processor_time_is_read_and_who_has_ended_has_none() -> None:
    before = cpu_seconds([os.getpid()])
    while cpu_seconds([os.getpid()]) - before < 0.02:
        sum(range(10_000))
    ended = subprocess.Popen(["true"])
    ended.wait()
    with pytest.raises(Unmeasured, match="has ended"):
        cpu_seconds([ended.pid])
