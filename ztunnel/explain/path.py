"""The ways that a call may take, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ztunnel.authz.explanation import Tried
from ztunnel.model.address import Endpoint
from ztunnel.model.workload import Workload

MOST_PATHS: Final = 16
"""Endpoints explained of a service; of more, how many there are."""


class Way(StrEnum):
    """How a call travels."""

    HBONE = "HBONE"
    WAYPOINT = "waypoint"
    DIRECT = "direct"
    PLAINTEXT = "plaintext"
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class Path:
    """One way that a call may take.

    Attributes:
        to: who answers, as `namespace/name`, or the address where nobody is known.
        endpoint: its address and port.
        node: where it runs.
        way: how the call travels.
        allowed: whether it gets there.
        reason: why, or why not.
        tried: the policies that were looked at, in order; empty where none is.
        onward: of a waypoint that lets it through, the ways from there.
    """

    to: str
    endpoint: str
    node: str
    way: Way
    allowed: bool
    reason: str
    tried: tuple[Tried, ...] = ()
    onward: tuple[Path, ...] = ()

    @property
    def refusal(self) -> str:
        """Why it is refused, here or on each way from here; empty: it is not."""
        if not self.allowed:
            return self.reason
        refused = [path for path in self.onward if path.refusal]
        return f"behind {self.to}, {refused[0].refusal}" if refused and refused == [*self.onward] else ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What becomes of a call. `source` and `destination` describe its ends; `more` are endpoints beyond
    `MOST_PATHS` that are not shown."""

    source: str
    destination: str
    paths: tuple[Path, ...]
    more: int = 0

    @property
    def allowed(self) -> bool:
        """Whether every way is allowed."""
        return not any(path.refusal for path in self.paths)

    @property
    def verdict(self) -> str:
        """One sentence."""
        refused = [path.refusal for path in self.paths if path.refusal]
        if not refused:
            return f"allowed: {self.paths[0].reason}"
        if len(refused) == len(self.paths):
            return f"refused: {refused[0]}"
        return f"refused by {len(refused)} of {len(self.paths)} endpoints: {refused[0]}"


def why_allowed(by: str | None, tried: tuple[Tried, ...]) -> str:
    """Why policies let it pass; `by` is the one that allows it."""
    if by is not None:
        return f"allowed by {by}"
    in_force = [one for one in tried if not one.dry_run]
    return "no policy denies it, and none allows anything" if in_force else "no policy concerns it"


def path_to(
    destination: Workload,
    endpoint: Endpoint,
    way: Way,
    reason: str,
    tried: tuple[Tried, ...] = (),
) -> Path:
    """A way to a workload, allowed."""
    to = f"{destination.namespace}/{destination.name}"
    return Path(to, str(endpoint), destination.node, way, True, reason, tried)
