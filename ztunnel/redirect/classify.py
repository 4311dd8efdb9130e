"""Which pods' processes may not call anybody yet, as the kernel is told: those of pods that start, before
their namespaces are known and it is known whether they are in the mesh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ztunnel.kernel.bpf import Map
from ztunnel.redirect.exempt import CgroupBranch
from ztunnel.redirect.layout import NUMBER, SMALL, START_RULES, StartRule

_ONLY = SMALL.pack(0)
_PASSES = NUMBER.pack(0)


@dataclass(frozen=True, slots=True)
class PodsBranch:
    """Where the cgroups of a kubelet's pods are in cgroup v2: below `kubepods`, or below that of one of two
    qualities of service in it, whose ids are 0 where they are not there."""

    kubepods: CgroupBranch
    burstable: int = 0
    besteffort: int = 0


class Starts:
    """Pods that start, by the ids of their cgroups."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._rules, self._starting, self._early = (
            maps[name] for name in ("start_rules", "starting", "early")
        )

    def rule(self, rule: StartRule | None, branch: PodsBranch | None = None) -> None:
        """From now on the calls of pods below `branch` are refused while they are held (NAMED), or unless
        they are let pass (ALL_PODS); None: of none. Raises OSError."""
        where = branch or PodsBranch(CgroupBranch(0, 0))
        value = START_RULES.pack(
            rule or 0, where.kubepods.level, where.kubepods.cgroup_id, where.burstable, where.besteffort
        )
        self._rules.put(_ONLY, value)

    def refuses_unknown(self) -> bool:
        """Whether ALL_PODS is in force, maybe since before this process."""
        found = self._rules.get(_ONLY)
        return found is not None and START_RULES.unpack(found)[0] == StartRule.ALL_PODS

    def hold(self, cgroup: int, until_ns: int) -> None:
        """The pod's calls are refused until it is enrolled, or that time by CLOCK_MONOTONIC. Raises OSError:
        there are too many."""
        self._starting.put(NUMBER.pack(cgroup), NUMBER.pack(until_ns))

    def let_pass(self, cgroup: int) -> None:
        """The pod's calls are never refused. Raises OSError: there are too many."""
        self._starting.put(NUMBER.pack(cgroup), _PASSES)

    def forget(self, cgroup: int) -> None:
        """Nothing is known of the pod any more."""
        self._starting.drop(NUMBER.pack(cgroup))

    def known(self) -> set[int]:
        """Those of which something is known."""
        return {NUMBER.unpack(key)[0] for key in self._starting}

    def called_early(self, cgroup: int) -> bool:
        """Whether a process of the pod has called somebody while nothing was known of the pod, or after its
        time was up; asked once."""
        key = NUMBER.pack(cgroup)
        found = self._early.get(key) is not None
        if found:
            self._early.drop(key)
        return found
