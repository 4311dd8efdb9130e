"""What is loaded, where it is attached and pinned, and how a balancer's weights become slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import reduce
from math import gcd
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

MAX_SLOTS_PER_VIP = 256


class Target(Enum):
    """What a program is attached to."""

    CGROUP = "cgroup"
    NAMESPACE = "namespace"


@dataclass(frozen=True, slots=True)
class Hook:
    """One program: its function in `bpf/`, enum bpf_prog_type, enum bpf_attach_type, and what it is attached
    to."""

    name: str
    kind: int
    hook: int
    target: Target
    optional: bool = False
    """Where the kernel does not load it, something else does its work."""


SK_LOOKUP = Hook("sk_lookup", 30, 36, Target.NAMESPACE)

FORWARD = Hook("forward", 32, 45, Target.NAMESPACE, optional=True)

# In the order in which they are attached: what records comes before what redirects.
HOOKS = (
    Hook("sockops", 13, 3, Target.CGROUP),
    Hook("sock_release", 9, 34, Target.CGROUP),
    Hook("getpeername4", 18, 29, Target.CGROUP),
    Hook("getpeername6", 18, 30, Target.CGROUP),
    Hook("connect4", 18, 10, Target.CGROUP),
    Hook("connect6", 18, 11, Target.CGROUP),
    SK_LOOKUP,
    FORWARD,
    Hook("egress", 8, 1, Target.CGROUP),
)


LISTED = (
    *(hook for hook in HOOKS if hook.name.startswith(("connect", "getpeername", "sockops"))),
    Hook("sendmsg4", 18, 14, Target.CGROUP),
    Hook("sendmsg6", 18, 15, Target.CGROUP),
    Hook("recvmsg4", 18, 19, Target.CGROUP),
    Hook("recvmsg6", 18, 20, Target.CGROUP),
)
"""Where programs of others may change what the mesh sees of a pod's traffic: those of load balancers, too,
that do so for datagrams alone."""


@dataclass(frozen=True, slots=True)
class RedirectSettings:
    """How redirection is set up.

    Attributes:
        pins: the node's own directory in a bpffs, e.g. `/sys/fs/bpf/ztunnel/node-1`. A bpffs takes no dots in
            names: `pin_name` makes a node's name fit.
        cache: where compiled programs and the joined headers are kept.
        cgroup: the cgroup v2 directory below which connects are seen; None is the root, found in
            /proc/mounts.
        max_connections: live connections that the kernel can remember, some 400 bytes each.
        max_verdicts: verdicts that the kernel caches.
        max_addresses: addresses of the mesh that the kernel is told; of a larger mesh, every call is
            captured.
        lease_seconds: verdicts older than this since the last renewal do not count.
    """

    pins: Path
    cache: Path = Path("/var/cache/ztunnel/bpf")
    cgroup: Path | None = None
    max_connections: int = 65536
    max_verdicts: int = 16384
    max_addresses: int = 262144
    lease_seconds: float = 2.0

    def compiler_flags(self) -> tuple[str, ...]:
        """The settings as bpf/lib/config.h knows them."""
        return (
            f"-DMAX_CONNECTIONS={self.max_connections}",
            f"-DMAX_VERDICTS={self.max_verdicts}",
            f"-DMAX_ADDRESSES={self.max_addresses}",
            f"-DLEASE_NS={round(self.lease_seconds * 1e9)}ULL",
        )


def pinned_in(place: Path) -> list[Path]:
    """Where proxies have pinned something, below one directory of a bpffs; not what is being made
    (`Pins.under_construction`). Raises OSError."""
    found = sorted(place.iterdir()) if place.is_dir() else []
    return [each for each in found if each.is_dir() and not each.name.startswith("+")]


@dataclass(frozen=True, slots=True)
class Pins:
    """The places of one node's pins. `version` is a symbolic link whose target is the fingerprint of what is
    loaded, since a bpffs holds no plain files."""

    root: Path

    @property
    def maps(self) -> Path:
        return self.root / "maps"

    @property
    def programs(self) -> Path:
        return self.root / "programs"

    @property
    def links(self) -> Path:
        return self.root / "links"

    @property
    def pods(self) -> Path:
        """sk_lookup links, named by the cookie of the namespace that they are attached to."""
        return self.root / "pods"

    @property
    def version(self) -> Path:
        return self.root / "version"

    def pod(self, cookie: int) -> Path:
        return self.pods / str(cookie)

    @property
    def forwards(self) -> Path:
        """Netfilter links, named by cookie and family, `4711-4`."""
        return self.root / "forwards"

    def forward(self, cookie: int, family: int) -> Path:
        return self.forwards / f"{cookie}-{family}"

    def under_construction(self) -> Pins:
        """Where a first installation is made before it is renamed into place."""
        return Pins(self.root.with_name(f"+{self.root.name}"))


def pin_name(node: str) -> str:
    """A node's name as a bpffs accepts it: without dots, and no two names become one."""
    return node.replace("_", "__").replace(".", "_-")


def spread(choices: Sequence[tuple[T, int]], limit: int = MAX_SLOTS_PER_VIP) -> tuple[T, ...]:
    """A table from which a uniform pick has the shares of the weights: exactly where they fit into `limit`
    slots, else to the nearest slot, and every choice of positive weight at least one.

    Args:
        choices: (choice, weight); a weight of 0 or less gets no slot.
    """
    positive = [(choice, weight) for choice, weight in choices if weight > 0][:limit]
    if not positive:
        return ()
    divisor = reduce(gcd, (weight for _, weight in positive))
    exact = [weight // divisor for _, weight in positive]
    total = sum(exact)
    if total > limit:
        exact = [max(1, weight * limit // total) for weight in exact]
        while sum(exact) > limit:
            exact[exact.index(max(exact))] -= 1
    return tuple(choice for (choice, _), slots in zip(positive, exact, strict=True) for _ in range(slots))
