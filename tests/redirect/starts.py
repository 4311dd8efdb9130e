"""Pods that start, as the kernel is told, kept in memory. Which calls it refuses,
tests/redirect/test_classify.py tries on the real one."""

from __future__ import annotations

from ztunnel.redirect.classify import PodsBranch
from ztunnel.redirect.layout import StartRule


class KeptStarts:
    """As `Starts`."""

    def __init__(self) -> None:
        self.rules: list[tuple[StartRule | None, PodsBranch | None]] = []
        self.until: dict[int, int] = {}
        self.early: set[int] = set()
        self.broken: OSError | None = None

    def rule(self, rule: StartRule | None, branch: PodsBranch | None = None) -> None:
        if self.broken is not None:
            raise self.broken
        self.rules.append((rule, branch))

    def refuses_unknown(self) -> bool:
        return bool(self.rules) and self.rules[-1][0] is StartRule.ALL_PODS

    def hold(self, cgroup: int, until_ns: int) -> None:
        assert until_ns > 0
        self.until[cgroup] = until_ns

    def let_pass(self, cgroup: int) -> None:
        self.until[cgroup] = 0

    def forget(self, cgroup: int) -> None:
        self.until.pop(cgroup, None)

    def known(self) -> set[int]:
        return set(self.until)

    def called_early(self, cgroup: int) -> bool:
        found = cgroup in self.early
        self.early.discard(cgroup)
        return found

    @property
    def held(self) -> set[int]:
        return {cgroup for cgroup, until_ns in self.until.items() if until_ns}

    @property
    def passing(self) -> set[int]:
        return {cgroup for cgroup, until_ns in self.until.items() if not until_ns}
