"""One flow that the kernel made by itself between two pods of this node, and what it has counted."""

from __future__ import annotations

from collections.abc import Callable

from ztunnel.errors import ConnectionFailed
from ztunnel.model.address import Endpoint
from ztunnel.model.connection import Connection
from ztunnel.redirect.records import RecordRole
from ztunnel.telemetry.metrics import Measured
from ztunnel.telemetry.report import Account


class KernelFlow:
    """One flow between two pods of this node. Live: a change of policy destroys its sockets.

    Attributes:
        key: its 4-tuple as records have it.
        sockets: the kernel's cookie of each end's socket, as far as it is known.
        ended: the ends that have reported their end.
        unseen: polls in a row that did not find it.
        condemned: why it has to end, once a policy refuses it.
    """

    __slots__ = (
        "_destroy",
        "accounts",
        "condemned",
        "connection",
        "counts",
        "ended",
        "key",
        "sockets",
        "source_uid",
        "unseen",
        "workload_uid",
    )

    def __init__(
        self,
        destroy: Callable[[KernelFlow], None],
        key: bytes,
        connection: Connection,
        uids: tuple[str, str],
    ) -> None:
        """`uids` are those of the source's and the destination's workload, empty where unknown."""
        self._destroy = destroy
        self.key = key
        self.connection = connection
        self.counts = Measured()
        self.source_uid, self.workload_uid = uids
        self.accounts: list[Account] = []
        self.sockets: dict[RecordRole, int] = {}
        self.ended: set[RecordRole] = set()
        self.unseen = 0
        self.condemned: ConnectionFailed | None = None

    @property
    def ends(self) -> tuple[Endpoint, Endpoint]:
        """Its 4-tuple, the source first."""
        return self.connection.source, self.connection.destination

    def belongs(self, role: RecordRole, socket: int) -> bool:
        """Whether this is the socket of that end; the first one named is."""
        return self.sockets.setdefault(role, socket) == socket

    def measure(self, role: RecordRole, sent_bytes: int, received_bytes: int = 0) -> None:
        """What one end has sent and received since the flow's start."""
        if role is RecordRole.CLIENT:
            self.counts.measure(sent_bytes, received_bytes)
        else:
            self.counts.measure(received_bytes, sent_bytes)

    def abort(self, error: ConnectionFailed) -> None:
        """Destroy it: its sockets see ECONNABORTED and ECONNRESET."""
        self.condemned = error
        self._destroy(self)
