"""What is said of other programs on the hooks of cgroups."""

from __future__ import annotations

import pytest

from ztunnel.analyze.checks import State
from ztunnel.analyze.hooks import hook_checks
from ztunnel.redirect.find import whose
from ztunnel.redirect.neighbour import Placed

FIX = "It is Cilium's socket load balancer, which its socketLB.hostNamespaceOnly=true keeps out of pods"


def placed(hook: str, name: str = "other", cgroup: str = "/", **changes: bool) -> Placed:
    return Placed(hook, cgroup, name, f"7 ({name}, loaded by uid 0)", **changes)


def test_without_others_that_is_said() -> None:
    [one] = hook_checks([], whose)
    assert (one.name, one.state, one.found) == ("programs on cgroup hooks", State.OK, "none of others")


@pytest.mark.parametrize(
    ("there", "state", "found", "fix"),
    [
        (
            placed("connect4"),
            State.WARN,
            "7 (other, loaded by uid 0) before ours",
            "where it rewrites addresses",
        ),
        (placed("connect6", after=True), State.WARN, "after ours", "that it sends elsewhere are dropped"),
        (placed("connect4", "cil_sock4_conne"), State.WARN, "before ours", FIX),
        (placed("connect4", exclusive=True), State.FAIL, "exclusive: 7", "BPF_F_ALLOW_MULTI"),
        # Links of ours run all the same.
        (
            placed("connect4", cgroup="/kubepods/x", exclusive=True),
            State.WARN,
            "before ours on /kubepods/x",
            "",
        ),
        (placed("sendmsg4"), State.OK, "7 (other", ""),
        (placed("sendmsg6", "cil_sock6_sendm"), State.WARN, "cil_sock6_sendm", FIX),
        (
            placed("recvmsg4", "calico_recvmsg_"),
            State.WARN,
            "calico",
            "bpfConnectTimeLoadBalancing: Disabled",
        ),
        (placed("sockops"), State.OK, "7 (other", ""),
    ],
)
def test_each_hook_says_who_is_there_and_what_to_do(
    there: Placed, state: State, found: str, fix: str
) -> None:
    [one] = hook_checks([there], whose)
    assert (one.name, one.state) == (f"cgroup/{there.hook}", state)
    assert found in one.found
    assert fix in one.fix


def test_a_hook_is_told_of_once_and_not_without_end() -> None:
    many = [placed("connect4", cgroup=f"/pods/{number}") for number in range(40)]
    [one, other] = hook_checks([placed("sockops"), *many], whose)
    assert one.found.endswith("on /pods/4, and 35 more")
    assert other.name == "cgroup/sockops"
