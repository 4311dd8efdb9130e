"""Who of several replicas leads, by a Lease (coordination.k8s.io), without I/O.

As client-go's leaderelection: who holds the lease renews it; who does not takes it when it has not changed
for its duration, by his own clock, as those of the machines differ. A leader that could not renew for a
while stops to be one before others may take it.

    following --free, or unchanged for its duration; written--> leading --not renewed in time, or lost-->
    following
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from ztunnel.kube.resource import LEASES

DURATION_SECONDS: Final = 15.0
RENEW_SECONDS: Final = 10.0
"""A leader that has not renewed for so long is none."""
RETRY_SECONDS: Final = 2.0
"""Between tries (client-go's defaults: 15 s, 10 s, 2 s)."""

_RELEASED_SECONDS: Final = 1
_FORMAT: Final = "%Y-%m-%dT%H:%M:%S.%fZ"


class Candidate:
    """One replica. Times are monotonic seconds; `wall` is for readers of the lease."""

    def __init__(self, namespace: str, name: str, identity: str) -> None:
        """`identity` is another one for each replica, and each life of it."""
        self._meta = {"namespace": namespace, "name": name}
        self.identity = identity
        self._seen: tuple[object, float] | None = None
        self._renewed_at = float("-inf")

    def leads(self, now: float) -> bool:
        """Whether this replica leads."""
        return now < self.leads_until

    @property
    def leads_until(self) -> float:
        """When it stops to lead unless it renews."""
        return self._renewed_at + RENEW_SECONDS

    def next(self, lease: Mapping[str, Any] | None, now: float, wall: datetime) -> dict[str, Any] | None:
        """What to write, given the lease as it is (None: there is none); None: nothing, another one leads."""
        spec = _spec(lease)
        holder = str(spec.get("holderIdentity") or "")
        if lease is not None and holder != self.identity:
            self._renewed_at = float("-inf")
            record = holder, spec.get("renewTime"), spec.get("acquireTime")
            if self._seen is None or self._seen[0] != record:
                self._seen = record, now
            if holder and now < self._seen[1] + _duration(spec):
                return None
        stamp, changes = wall.strftime(_FORMAT), spec.get("leaseTransitions")
        mine = holder == self.identity
        made = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(DURATION_SECONDS),
            "acquireTime": spec.get("acquireTime") if mine else stamp,
            "renewTime": stamp,
            "leaseTransitions": (changes if isinstance(changes, int) else 0)
            + (lease is not None and not mine),
        }
        return self._object(lease, made)

    def wrote(self, asked_at: float) -> None:
        """What `next` gave was written; the request began at `asked_at`."""
        self._renewed_at = asked_at
        self._seen = None

    def released(self, lease: Mapping[str, Any], wall: datetime) -> dict[str, Any] | None:
        """What to write to let another one lead at once; None where this one does not."""
        self._renewed_at = float("-inf")
        spec = _spec(lease)
        if spec.get("holderIdentity") != self.identity:
            return None
        stamp = wall.strftime(_FORMAT)
        free = {"holderIdentity": "", "leaseDurationSeconds": _RELEASED_SECONDS, "renewTime": stamp}
        return self._object(lease, {**spec, **free, "acquireTime": stamp})

    def _object(self, lease: Mapping[str, Any] | None, spec: Mapping[str, Any]) -> dict[str, Any]:
        meta = dict(self._meta)
        if lease is not None:
            meta["resourceVersion"] = str((lease.get("metadata") or {}).get("resourceVersion") or "")
        return {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": meta, "spec": dict(spec)}


def _spec(lease: Mapping[str, Any] | None) -> Mapping[str, Any]:
    spec = (lease or {}).get("spec")
    return spec if isinstance(spec, dict) else {}


def _duration(spec: Mapping[str, Any]) -> float:
    seconds = spec.get("leaseDurationSeconds")
    return float(seconds) if isinstance(seconds, int) and 0 < seconds < 3600 else DURATION_SECONDS
