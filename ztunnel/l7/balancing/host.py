"""An endpoint of a service as a waypoint has come to know it: what it has under way, how it has failed."""

from __future__ import annotations

from hashlib import blake2b

from ztunnel.model.address import Endpoint
from ztunnel.model.workload import Workload


def hash_of(octets: bytes) -> int:
    """64 bits, the same in every process."""
    return int.from_bytes(blake2b(octets, digest_size=8).digest(), "big")


class Host:
    """One of them. What it is may change (`workload`, `weight`, `level`, `place`); what has happened to it
    stays as long as it is an endpoint.

    Attributes:
        endpoint: where it is called.
        workload: whose that is.
        weight: its share beside the others; at least 1.
        level: 0 is asked first, others where too few of those before them are left.
        place: the localities of one level have shares; hosts of one place are one locality.
        since: monotonic seconds; when it was first named.
        active: requests and connections that it has under way.
        ejected_at: monotonic seconds; None: it is not ejected.
        ejections: by how much longer it is ejected the next time.
        server_errors, gateway_errors, local_errors: failures in a row.
    """

    __slots__ = (
        "_points", "active", "ejected_at", "ejections", "endpoint", "gateway_errors", "level", "local_errors",
        "place", "server_errors", "since", "weight", "workload",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint, workload: Workload, since: float) -> None:
        self.endpoint = endpoint
        self.workload = workload
        self.weight = 1
        self.level = 0
        self.place = 0
        self.since = since
        self.active = 0
        self.ejected_at: float | None = None
        self.ejections = 0
        self.server_errors = 0
        self.gateway_errors = 0
        self.local_errors = 0
        self._points: list[int] = []

    @property
    def available(self) -> bool:
        """Whether it is not ejected."""
        return self.ejected_at is None

    def points(self, count: int) -> list[int]:
        """The first places that it has on every ring, at least so many."""
        if len(self._points) < count:
            name = str(self.endpoint)
            self._points += [hash_of(f"{name}_{n}".encode()) for n in range(len(self._points), count)]
        return self._points
