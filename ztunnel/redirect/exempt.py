"""Keeps this process exempt from its own redirection: its cgroup is written down, and looked at again.

A proxy that somebody moves to another cgroup would capture its own calls, accept them, make them anew,
capture them again: 20,000 descriptors in two seconds. So before a captured call is taken up, and twice a
second besides, it is looked where this process is; where that cannot be exempted, captured calls are refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ztunnel.kernel.bpf import Map
from ztunnel.kernel.cgroup import cgroup_id
from ztunnel.kernel.sockets import own_cgroup_id
from ztunnel.redirect.layout import NODE_CLIENTS, NUMBER, SMALL, NodeRule

LOOK_SECONDS = 0.02
"""In so long a proxy that captures itself makes some two hundred connections."""

IN_ROOT = (
    "the proxy is in the root cgroup, and so is every process that nobody has put elsewhere: "
    "all of them would be exempt with it. Move it to a cgroup of its own"
)


@dataclass(frozen=True, slots=True)
class CgroupBranch:
    """A cgroup and all below it: its id, and its depth below the root of cgroup v2 (the root itself is 0)."""

    cgroup_id: int
    level: int


class CgroupRules:
    """Who is exempt, and who of the node may reach pods, as the kernel is told."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._maps = maps

    def own_cgroup(self, cgroup_id: int) -> None:
        """Sockets that a process of exactly this cgroup connects are ours: never captured."""
        self._maps["own_cgroups"].put(NUMBER.pack(cgroup_id), SMALL.pack(1))

    def disown_cgroup(self, cgroup_id: int) -> None:
        """Undo `own_cgroup`."""
        self._maps["own_cgroups"].drop(NUMBER.pack(cgroup_id))

    def own_cgroups(self) -> list[int]:
        """All cgroups of `own_cgroup`."""
        return [int(NUMBER.unpack(key)[0]) for key in self._maps["own_cgroups"]]

    def is_own_cgroup(self, cgroup_id: int) -> bool:
        """Whether the kernel knows this one as ours."""
        return self._maps["own_cgroups"].get(NUMBER.pack(cgroup_id)) is not None

    def node_clients(
        self, netns_cookie: int, cgroup_ids: Iterable[int] | None, outside: CgroupBranch | None = None
    ) -> None:
        """Which processes of the node's own namespace reach enrolled pods unproxied, e.g. the kubelet's
        probes.

        Args:
            netns_cookie: the node's own namespace.
            cgroup_ids: exactly these cgroups; None is every process.
            outside: with None above: every process but those in or below this cgroup (kubepods).
        """
        listed = self._maps["node_cgroups"]
        wanted = {NUMBER.pack(each) for each in cgroup_ids or ()}
        for key in wanted:
            listed.put(key, SMALL.pack(1))
        rule = NodeRule.ALL_OUTSIDE if cgroup_ids is None else NodeRule.SOME_CGROUPS
        branch = outside or CgroupBranch(0, 0)
        value = NODE_CLIENTS.pack(rule, branch.level, branch.cgroup_id)
        self._maps["node_rules"].put(NUMBER.pack(netns_cookie), value)
        for key in set(listed) - wanted:
            listed.drop(key)


class Cgroups(Protocol):
    """Who is exempt, in the kernel: `CgroupRules`."""

    def own_cgroup(self, cgroup_id: int) -> None: ...

    def disown_cgroup(self, cgroup_id: int) -> None: ...

    def own_cgroups(self) -> list[int]: ...

    def is_own_cgroup(self, cgroup_id: int) -> bool: ...


class Exemption:
    """Where this process is, and that the kernel knows it.

    Attributes:
        trouble: why captured calls must be refused now; empty where all is well.
        look_at: when `look` has something to do again, in monotonic seconds.
    """

    def __init__(
        self, cgroups: Cgroups, root: Path, repaired: Callable[[str], None] = lambda what: None
    ) -> None:
        """Writes it down. `repaired` is told when it had to be done again. Raises OSError."""
        self._cgroups = cgroups
        self._root, self._root_id = root, cgroup_id(root)
        self._repaired = repaired
        self._file = os.open("/proc/self/cgroup", os.O_RDONLY | os.O_CLOEXEC)
        self._where = b""
        self._place = ""
        self._own = 0
        self.trouble = ""
        self.look_at = 0.0
        try:
            self._settle(self._read())
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Look no more; what is written down stays."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def look(self, now: float) -> None:
        """See whether this process still is where it was, and the kernel still knows; 15 us. Never raises."""
        self.look_at = now + LOOK_SECONDS
        try:
            where = self._read()
            if self._holds(where):
                return
            self._settle(where)
        except OSError as error:
            self.trouble = f"the proxy cannot exempt itself from its own redirection: {error}"
            return
        if not self.trouble:
            self._repaired("own cgroup")

    def _holds(self, where: bytes) -> bool:
        if where != self._where or self.trouble or not self._cgroups.is_own_cgroup(self._own):
            return False
        if not self._place:
            return True
        with suppress(OSError):
            return os.stat(self._place).st_ino == self._own  # and not another one of the same name
        return False

    def _read(self) -> bytes:
        return os.pread(self._file, 1 << 14, 0)

    def _settle(self, where: bytes) -> None:
        own = own_cgroup_id()
        if own == self._root_id:
            self.trouble = IN_ROOT
            return
        self._exempt(own)
        if self._own not in (0, own):
            self._cgroups.disown_cgroup(self._own)
        self._where, self._own, self.trouble = where, own, ""
        self._place = self._visible(where)

    def _visible(self, where: bytes) -> str:
        """The directory of our cgroup; empty where it cannot be seen from here, as in a container."""
        for line in where.decode(errors="surrogateescape").splitlines():
            if line.startswith("0::"):
                path = f"{self._root}{line.removeprefix('0::')}"
                with suppress(OSError):
                    return path if os.stat(path).st_ino == self._own else ""
        return ""

    def _exempt(self, own: int) -> None:
        """Each container is a cgroup of its own, and the map has room for 64: when it is full, those before
        us have gone."""
        try:
            self._cgroups.own_cgroup(own)
        except OSError:
            for each in self._cgroups.own_cgroups():
                self._cgroups.disown_cgroup(each)
            self._cgroups.own_cgroup(own)
