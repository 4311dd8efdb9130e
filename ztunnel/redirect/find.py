"""Finds other programs on our hooks, and says what they do to us."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ztunnel.kernel.attached import attached, describe
from ztunnel.redirect.plan import HOOKS, Hook, Target

_BEFORE = {
    "connect4": "where it rewrites a service's address, the mesh sees a call to an endpoint",
    "connect6": "where it rewrites a service's address, the mesh sees a call to an endpoint",
}
_AFTER = {
    "connect4": "it may send captured calls elsewhere, past the mesh",
    "connect6": "it may send captured calls elsewhere, past the mesh",
    "getpeername4": "it may tell applications another peer than they called",
    "getpeername6": "it may tell applications another peer than they called",
    "sockops": "where it sets callback flags of its own, direct flows may end uncounted",
    "sk_lookup": "it may drop plaintext for pods, or take it to another listener",
}


_CILIUM = "Cilium's socket load balancer, which its socketLB.hostNamespaceOnly=true keeps out of pods"
_CALICO = "Calico's connect-time load balancer, which its bpfConnectTimeLoadBalancing: Disabled switches off"
_KNOWN = (("cil_sock", _CILIUM), ("sock4_", _CILIUM), ("sock6_", _CILIUM), ("calico_", _CALICO))
"""Whose a program is, by how its name begins (the kernel keeps 15 characters), and what to set there."""


@dataclass(frozen=True, slots=True, order=True)
class Neighbour:
    """A program of somebody else's on one of our hooks, and what it means."""

    hook: str
    id: int
    text: str


def find_neighbours(target_fd: int, hooks: Iterable[Hook], ours: Collection[int]) -> list[Neighbour]:
    """The programs of others on this cgroup or namespace that can make a difference to us. Raises OSError.

    Args:
        ours: numbers of programs that are ours, or another node proxy's on the same machine.
    """
    found: list[Neighbour] = []
    for hook in hooks:
        programs = attached(target_fd, hook.hook).programs
        last = max((number for number, each in enumerate(programs) if each in ours), default=-1)
        for number, each in enumerate(programs):
            effect = (_AFTER if number > last else _BEFORE).get(hook.name)
            if each not in ours and effect:
                order, known = "after" if number > last else "before", describe(each)
                text = f"program {known} runs {order} ours on {hook.name}: {effect}"
                found.append(Neighbour(hook.name, each, text + whose(known.name)))
    return found


def whose(name: str) -> str:
    """`. It is ...`: whose a program of this name is, and what to set there; empty where it is not known."""
    found = next((text for start, text in _KNOWN if name.startswith(start)), "")
    return f". It is {found}" if found else ""


def why_not_attached(error: OSError, target_fd: int, hook: Hook, place: str) -> str:
    """Why a program could not be attached to the cgroup at `place`, with who is in the way and what to do."""
    if error.errno != errno.EPERM or hook.target is not Target.CGROUP:
        return f"{hook.name} cannot be attached to {place}: {error.strerror}"
    try:
        there = attached(target_fd, hook.hook)
    except OSError:
        there = None
    if there is not None and there.programs and not there.is_shared:
        known = [describe(each) for each in there.programs]
        names = ", ".join(f"{each}{whose(each.name)}" for each in known)
        return (
            f"another program sits exclusively on cgroup/{hook.name} of {place}: {names}. "
            "Whoever attaches it has to allow others beside it (BPF_F_ALLOW_MULTI), or leave this hook"
        )
    return (
        f"cgroup/{hook.name} of {place} does not take our program: {error.strerror}. A program sits "
        "exclusively on a cgroup above (without BPF_F_ALLOW_MULTI), or CAP_NET_ADMIN or CAP_BPF is missing"
    )


CGROUP_HOOKS = tuple(hook for hook in HOOKS if hook.target is Target.CGROUP)
