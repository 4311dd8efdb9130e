"""Finds other programs on our hooks, and says what they do to us."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ztunnel.kernel.attached import attached, describe
from ztunnel.redirect.neighbour import Placed
from ztunnel.redirect.plan import HOOKS, LISTED, Hook, Target

_BEFORE = {
    "connect4": "where it rewrites a service's address, the mesh sees a call to an endpoint",
    "connect6": "where it rewrites a service's address, the mesh sees a call to an endpoint",
}
_AFTER = {
    "connect4": "captured calls that it sends elsewhere are dropped",
    "connect6": "captured calls that it sends elsewhere are dropped",
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


def programs_on(target_fd: int, hooks: Iterable[Hook]) -> frozenset[int]:
    """The numbers of all programs on this cgroup or namespace, whosever they are. Raises OSError."""
    return frozenset(number for hook in hooks for number in attached(target_fd, hook.hook).programs)


def list_programs(root: Path, ours: Collection[int]) -> list[Placed]:
    """The programs of others on every hook of LISTED, of the root of cgroup v2 and of all cgroups below;
    those of a cgroup run before those of the cgroups above. Takes some 20 us for each cgroup.

    Raises:
        OSError: the root cannot be asked.
    """
    found = _on_cgroup(root, "/", ours)
    for below in _below(root):
        with suppress(OSError):  # it has just gone
            found += _on_cgroup(below, f"/{below.relative_to(root)}", ours)
    return found


def _below(root: Path) -> Iterator[Path]:
    for place, names, _ in os.walk(root):
        yield from (Path(place, name) for name in sorted(names))


def _on_cgroup(place: Path, name: str, ours: Collection[int]) -> list[Placed]:
    found: list[Placed] = []
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for hook in LISTED:
            there = attached(fd, hook.hook)
            last = max((number for number, each in enumerate(there.programs) if each in ours), default=None)
            for number, each in enumerate(there.programs):
                if each not in ours:
                    known = describe(each)
                    after = name == "/" and last is not None and number > last
                    found.append(Placed(hook.name, name, known.name, str(known), after, not there.is_shared))
    finally:
        os.close(fd)
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
