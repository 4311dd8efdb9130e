"""Short slices: for the thread that asks, and for nobody else."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ztunnel.kernel.scheduler import SLICE_SECONDS, ask_for_short_slices

GETATTR = {"x86_64": 315, "s390x": 346, "ppc64le": 356}.get(platform.machine(), 275)
SHORT = int(SLICE_SECONDS * 1e9)


def attributes() -> tuple[int, int, int]:
    """Policy, nice and slice, in nanoseconds, of the calling thread."""
    buffer = ctypes.create_string_buffer(56)
    assert ctypes.CDLL(None).syscall(GETATTR, 0, buffer, len(buffer), 0) == 0
    _, policy, _, nice, _, runtime = struct.unpack_from("=IIQiIQ", buffer)
    return policy, nice, runtime


def in_a_thread(do: Callable[[], None]) -> None:
    """What is asked of the scheduler stays with the thread that asks."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(do).result()


def test_the_thread_that_asks_has_them_and_those_that_it_starts_have_not() -> None:
    seen: list[tuple[int, int, int]] = []

    def ask() -> None:
        policy, nice, before = attributes()
        ask_for_short_slices()
        assert attributes() == (policy, nice, SHORT)
        in_a_thread(lambda: seen.append(attributes()))
        assert seen == [(policy, nice, before)]
        assert before > SHORT

    in_a_thread(ask)


def test_a_policy_that_somebody_chose_stays() -> None:
    def ask() -> None:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        before = attributes()
        ask_for_short_slices()
        assert attributes() == before

    in_a_thread(ask)


def test_being_nice_stays() -> None:
    def ask() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)
        ask_for_short_slices()
        assert attributes()[1:] == (5, SHORT)

    in_a_thread(ask)
