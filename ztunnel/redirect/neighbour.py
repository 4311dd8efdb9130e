"""A program of somebody else's on a hook where ours are, or could be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Placed:
    """
    Attributes:
        hook: `connect4`, ...
        cgroup: below the root of cgroup v2, `/` for the root.
        name: what the kernel keeps of its name, 15 characters.
        text: number, name, and who loaded it.
        after: whether it runs after ours; else before, as everything below the root does.
        exclusive: whether it lets nobody else on this cgroup.
    """

    hook: str
    cgroup: str
    name: str
    text: str
    after: bool = False
    exclusive: bool = False
