"""Puts policies in force for the length of a `with` block, and waits until every node has them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ztunnel.demo.claims.shop import Shop
from ztunnel.demo.manifest import Manifest, parse

_Policies = tuple[list[Any], dict[str, Sequence[str]]]


class Enforcement:
    """The policies that a claim has added to those of the laboratory. Made by `enforcing`."""

    def __init__(self, shop: Shop) -> None:
        """None yet."""
        self._shop = shop
        self._at_first = self._now()
        self._added: list[Manifest] = []

    def __call__(self, text: str) -> float:
        """Put the objects of a text in force, instead of those of the last one.

        They must be such that the policies of the proxies differ.

        Returns:
            When they were written, on the monotonic clock.

        Raises:
            LaboratoryFailed: some node does not have them in time.
        """
        before, wanted = self._now(), list(parse(text, "<claim>"))
        gone = [old for old in self._added if old.key not in {new.key for new in wanted}]
        self._added = [*gone, *wanted]
        begun = time.monotonic()
        self._shop.laboratory.apply_all(wanted)
        if gone:
            self._shop.laboratory.apply_all(gone, delete=True)
        self._added = wanted
        names = {f"{old.key.namespace}/{old.key.name}" for old in gone}

        def in_force() -> bool:
            return all(
                now != then and is_complete(now) and not names & _keys(now)
                for now, then in zip(self._now(), before, strict=True)
            )

        self._shop.until("the nodes have the policies in force", in_force)
        return begun

    def end(self) -> None:
        """Remove what was added, and wait until all is as it was at first. Raises LaboratoryFailed."""
        added, self._added = self._added, []
        if added:
            self._shop.laboratory.apply_all(added, delete=True)
        self._shop.until("the nodes have only the policies of before", lambda: self._now() == self._at_first)

    def _now(self) -> list[_Policies]:
        """What each node has."""
        return [policies(self._shop.dump(node)) for node in self._shop.nodes]


@contextmanager
def enforcing(shop: Shop) -> Iterator[Enforcement]:
    """Gives what puts policies in force; at the end everything is as it was."""
    enforce = Enforcement(shop)
    try:
        yield enforce
    finally:
        enforce.end()


@contextmanager
def enforced(shop: Shop, text: str) -> Iterator[float]:
    """Have the objects of a text in force for the length of the block; gives when they were written."""
    with enforcing(shop) as enforce:
        yield enforce(text)


def policies(dump: dict[str, Any]) -> _Policies:
    """The policies of a proxy's configuration, and which ones each workload lists."""
    return dump["policies"], {each["uid"]: each["authorizationPolicies"] for each in dump["workloads"]}


def is_complete(known: _Policies) -> bool:
    """Whether every policy that a workload lists has come."""
    return all(_keys(known).issuperset(listed) for listed in known[1].values())


def _keys(known: _Policies) -> set[str]:
    return {f"{policy['namespace']}/{policy['name']}" for policy in known[0]}
