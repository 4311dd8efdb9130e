"""Which programs are on a hook, and what is known of them."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.kernel.lab import Lab
from ztunnel.kernel import bpf
from ztunnel.kernel.attached import Attached, attached, describe
from ztunnel.kernel.bpf import Program

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

CGROUP_SOCK_ADDR, CONNECT4, CONNECT6 = 18, 10, 11
ALLOW = bytes.fromhex("b7000000010000009500000000000000")  # r0 = 1; exit
PROG_ATTACH, PROG_DETACH, MULTI = 8, 9, 2


def program(name: str, hook: int = CONNECT4) -> int:
    return bpf.prog_load(Program(name, CGROUP_SOCK_ADDR, hook, ALLOW))


@pytest.fixture
def here(lab: Lab) -> Iterator[int]:
    fd = os.open(lab.branches["app"], os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def attach(stack: ExitStack, target: int, name: str, flags: int) -> int:
    """As programs that know no links do; its number."""
    fd = program(name)
    stack.callback(bpf.close, fd)
    bpf.call(PROG_ATTACH, struct.pack("=IIII", target, fd, CONNECT4, flags))
    stack.callback(bpf.call, PROG_DETACH, struct.pack("=IIII", target, fd, CONNECT4, 0))
    return bpf.object_id(fd)


def link(stack: ExitStack, target: int, name: str) -> int:
    fd = program(name)
    stack.callback(bpf.close, fd)
    stack.callback(bpf.close, bpf.link_create(fd, target, CONNECT4))
    return bpf.object_id(fd)


def test_a_hook_without_programs_takes_any(here: int) -> None:
    assert attached(here, CONNECT4) == Attached((), True)


@pytest.mark.parametrize(("flags", "is_shared"), [(0, False), (1, False), (MULTI, True)])
def test_it_says_whether_others_may_be_added(
    here: int, stack: ExitStack, flags: int, is_shared: bool
) -> None:
    number = attach(stack, here, "other", flags)
    assert attached(here, CONNECT4) == Attached((number,), is_shared)
    assert attached(here, CONNECT6) == Attached((), True)


def test_programs_are_in_the_order_in_which_they_run(here: int, stack: ExitStack) -> None:
    numbers = [link(stack, here, f"n{each}") for each in range(5)]
    assert attached(here, CONNECT4) == Attached(tuple(numbers), True)


def test_a_program_has_a_name_and_who_loaded_it(here: int, stack: ExitStack) -> None:
    number = attach(stack, here, "cil_sock4", MULTI)
    assert str(describe(number)) == f"{number} (cil_sock4, loaded by uid 0)"


def test_of_a_program_that_has_gone_its_number_is_known() -> None:
    fd = program("gone")
    number = bpf.object_id(fd)
    bpf.close(fd)
    assert str(describe(number)) == f"{number} (without a name, loaded by uid 0)"


def test_what_is_no_cgroup_is_an_error() -> None:
    with open("/dev/null") as file, pytest.raises(OSError, match="bpf query:"):
        attached(file.fileno(), CONNECT4)
