"""Other programs on our hooks: named, with what they do to us; and why ours cannot be attached."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.kernel.lab import Kernel, Lab
from tests.kernel.test_attached import ALLOW, MULTI, attach, link, program
from ztunnel.errors import Unsupported
from ztunnel.kernel import bpf
from ztunnel.kernel.attached import attached
from ztunnel.redirect import load
from ztunnel.redirect.find import (
    CGROUP_HOOKS,
    find_neighbours,
    list_programs,
    programs_on,
    why_not_attached,
)
from ztunnel.redirect.plan import HOOKS, LISTED, SK_LOOKUP

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

CONNECT4 = next(hook for hook in HOOKS if hook.name == "connect4")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture
def here(lab: Lab) -> Iterator[int]:
    fd = os.open(lab.root, os.O_RDONLY)
    yield fd
    os.close(fd)


def ours(target: int) -> frozenset[int]:
    return programs_on(target, CGROUP_HOOKS)


def test_alone_there_is_nothing_to_say(kernel: Kernel, here: int) -> None:
    assert len(ours(here)) == len(CGROUP_HOOKS)
    assert find_neighbours(here, CGROUP_HOOKS, ours(here)) == []


def test_who_runs_after_ours_is_named_with_what_it_may_do(
    kernel: Kernel, here: int, stack: ExitStack
) -> None:
    known = ours(here)
    number = attach(stack, here, "cil_sock4", MULTI)
    (found,) = find_neighbours(here, CGROUP_HOOKS, known)
    assert (found.hook, found.id) == ("connect4", number)
    assert found.text == (
        f"program {number} (cil_sock4, loaded by uid 0) runs after ours on connect4: "
        "captured calls that it sends elsewhere are dropped. It is Cilium's socket load balancer, which its "
        "socketLB.hostNamespaceOnly=true keeps out of pods"
    )


def test_who_runs_before_ours_is_named_too(lab: Lab, here: int, stack: ExitStack) -> None:
    number = link(stack, here, "early")
    with Kernel(lab):
        known = ours(here) - {number}
        (found,) = find_neighbours(here, CGROUP_HOOKS, known)
        assert f"program {number} (early, loaded by uid 0) runs before ours on connect4" in found.text


def test_where_it_makes_no_difference_nothing_is_said(kernel: Kernel, here: int, stack: ExitStack) -> None:
    release = next(hook for hook in HOOKS if hook.name == "sock_release")
    fd = bpf.prog_load(bpf.Program("other", release.kind, release.hook, ALLOW))
    stack.callback(bpf.close, fd)
    known = ours(here)
    stack.callback(bpf.close, bpf.link_create(fd, here, release.hook))
    assert find_neighbours(here, CGROUP_HOOKS, known) == []


def test_another_sk_lookup_program_in_a_pods_namespace_is_named(kernel: Kernel, stack: ExitStack) -> None:
    kernel.enroll("a")
    netns = kernel.lab.a.fileno()
    known = set(attached(netns, SK_LOOKUP.hook).programs)
    assert len(known) == 1
    fd = bpf.prog_load(bpf.Program("tubular", SK_LOOKUP.kind, SK_LOOKUP.hook, ALLOW))
    stack.callback(bpf.close, fd)
    stack.callback(bpf.close, bpf.link_create(fd, netns, SK_LOOKUP.hook))
    (found,) = find_neighbours(netns, [SK_LOOKUP], known)
    assert "(tubular, loaded by uid 0) runs after ours on sk_lookup: it may drop plaintext" in found.text


@pytest.mark.parametrize(
    ("name", "flags", "fix"),
    [
        ("exclusive", 0, "BPF_F_ALLOW_MULTI"),
        ("exclusive", 1, "BPF_F_ALLOW_MULTI"),
        ("cil_sock4_conne", 0, "socketLB.hostNamespaceOnly=true"),
        ("calico_connect_", 1, "bpfConnectTimeLoadBalancing: Disabled"),
    ],
)
def test_a_program_that_sits_exclusively_is_named_and_what_to_do(
    lab: Lab, here: int, stack: ExitStack, name: str, flags: int, fix: str
) -> None:
    number = attach(stack, here, name, flags)
    settings = Kernel(lab).settings
    with pytest.raises(Unsupported) as refused:
        load.ensure_loaded(settings)
    text = str(refused.value)
    assert f"another program sits exclusively on cgroup/connect4 of {lab.root}: {number} ({name}" in text
    assert fix in text
    assert "Errno" not in text
    assert not settings.pins.exists()


def test_one_that_sits_on_a_cgroup_above_is_told_of_as_far_as_it_can_be_seen(
    lab: Lab, here: int, stack: ExitStack
) -> None:
    attach(stack, here, "above", 0)
    below = os.open(lab.branches["app"], os.O_RDONLY)
    stack.callback(os.close, below)
    fd = program("mine")
    stack.callback(bpf.close, fd)
    with pytest.raises(PermissionError) as refused:
        bpf.link_create(fd, below, CONNECT4.hook)
    text = why_not_attached(refused.value, below, CONNECT4, "/here")
    assert re.search("sits exclusively on a cgroup above", text)


def test_other_refusals_keep_their_words() -> None:
    with open("/dev/null") as file:
        other = OSError(errno.EINVAL, "Invalid argument")
        assert why_not_attached(other, file.fileno(), CONNECT4, "/x") == (
            "connect4 cannot be attached to /x: Invalid argument"
        )


def test_every_program_is_listed_wherever_it_is(
    kernel: Kernel, lab: Lab, here: int, stack: ExitStack
) -> None:
    known = ours(here)
    assert list_programs(lab.root, known) == []
    below = os.open(lab.branches["app"], os.O_RDONLY)
    stack.callback(os.close, below)
    for hook in LISTED:
        for target in (here, below):
            code = bpf.Program(f"x{hook.name}", hook.kind, hook.hook, ALLOW)
            fd = bpf.prog_load(code)
            stack.callback(bpf.close, fd)
            stack.callback(bpf.close, bpf.link_create(fd, target, hook.hook))
    found = list_programs(lab.root, known)
    names = {"connect4", "connect6", "sendmsg4", "sendmsg6", "recvmsg4", "recvmsg6", "sockops"}
    names |= {"getpeername4", "getpeername6"}
    assert {(each.hook, each.cgroup) for each in found} == {
        (name, at) for name in names for at in ("/", "/app")
    }
    assert all(each.name == f"x{each.hook}" and not each.exclusive for each in found)
    after = {each.hook for each in found if each.after}
    assert after == names - {"sendmsg4", "sendmsg6", "recvmsg4", "recvmsg6"}  # where none of ours is
    assert all(each.cgroup == "/" for each in found if each.after)


def test_an_exclusive_one_is_known(lab: Lab, here: int, stack: ExitStack) -> None:
    attach(stack, here, "alone", 0)
    [one] = list_programs(lab.root, ())
    assert (one.exclusive, one.after, one.name) == (True, False, "alone")
