from __future__ import annotations

import os
import resource
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.kernel.lab import Kernel, endpoint
from ztunnel.redirect.layout import Deny, Outcome
from ztunnel.redirect.records import RecordEvent

MAPPED_BYTES = 4 * (80 << 10)
"""Four buffers, a window and two pages of each."""

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def refuse(kernel: Kernel, times: int) -> None:
    """Make as many records."""
    pod = kernel.enroll("a")
    for number in range(times):
        if number % 100 == 0:  # the lease is two seconds long, and a busy machine is slow
            kernel.redirection.renew_lease(time.monotonic_ns())
        to = endpoint("10.77.0.3", 1000 + number % 1000)
        kernel.redirection.teach(pod.cookie, to, Deny(number, kernel.redirection.generation(pod.cookie)))
        with kernel.lab.a.socket(2, 1) as client, pytest.raises(ConnectionRefusedError):
            client.connect((str(to.ip), to.port))


def mapped_bytes() -> int:
    """Of the kernel's maps in this process, which count as its memory."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    ranges = [line.split()[0].split("-") for line in lines if "bpf-map" in line]
    return sum(int(end, 16) - int(start, 16) for start, end in ranges)


def test_records_come_in_order_and_once_and_make_the_descriptor_readable(kernel: Kernel) -> None:
    assert kernel.redirection.records() == []
    assert select.select([kernel.redirection.records_fd], [], [], 0)[0] == []
    refuse(kernel, 3)
    assert select.select([kernel.redirection.records_fd], [], [], 0)[0] == [kernel.redirection.records_fd]
    records = kernel.redirection.records()
    assert [record.policy for record in records] == [0, 1, 2]
    assert {record.event for record in records} == {RecordEvent.DENIED}
    assert sorted(record.time_ns for record in records) == [record.time_ns for record in records]
    assert kernel.redirection.records() == []
    assert select.select([kernel.redirection.records_fd], [], [], 0)[0] == []


def test_records_are_read_around_the_end_of_the_buffer_and_lost_ones_are_counted(kernel: Kernel) -> None:
    room = (2 << 20) // 120
    refuse(kernel, room + 10)
    records = kernel.redirection.records()
    while more := kernel.redirection.records():
        records += more
        assert mapped_bytes() < MAPPED_BYTES
    assert [record.policy for record in records] == list(range(room))
    assert kernel.count("record_lost") == 10
    refuse(kernel, 20)
    assert [record.policy for record in kernel.redirection.records()] == list(range(20))


@contextmanager
def descriptors(limit: int) -> Iterator[None]:
    """None is free: those below the limit are taken."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for each in taken:
            os.close(each)


def test_records_are_read_without_a_free_descriptor_and_wait_where_even_their_own_is_lost(
    kernel: Kernel,
) -> None:
    refuse(kernel, 2000)  # three windows full
    with descriptors(max(map(int, os.listdir("/proc/self/fd"))) + 1):
        records = kernel.redirection.records(1000)
    assert len(records) == 1000
    with descriptors(0):
        while more := kernel.redirection.records():
            records += more
    assert 1000 <= len(records) < 2000
    while more := kernel.redirection.records():
        records += more
    assert [record.policy for record in records] == list(range(2000))


def test_every_outcome_has_a_counter(kernel: Kernel) -> None:
    outcomes = kernel.redirection.outcomes()
    assert set(outcomes) == {outcome.name.lower() for outcome in Outcome}
    assert set(outcomes.values()) == {0}
    refuse(kernel, 2)
    assert kernel.redirection.outcomes()["connect_denied"] == 2
