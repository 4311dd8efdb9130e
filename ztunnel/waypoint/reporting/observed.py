"""What the log and the metrics have to say of an exchange."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final

from ztunnel.http1.head import Fields
from ztunnel.l7.flags import joined
from ztunnel.l7.grpc import MessageCounter
from ztunnel.l7.policy.rule import Tried
from ztunnel.l7.reply import NO_FLAG, Reply
from ztunnel.l7.request import Request
from ztunnel.model.service import Service
from ztunnel.model.workload import Workload

_BEFORE: Final = "before_response_started"
_AFTER: Final = "after_response_started"
NO_FIELDS: Fields = ()
NO_TRIALS: Sequence[Tried] = ()
_MOST_INTERIMS: Final = 100
"""Of one exchange: a server that says 102 (Processing) every few seconds needs some."""


class Observed:
    """One exchange.

    Attributes:
        added: fields that its response has besides.
        asked: the request as the client has sent it, where there are rules about tokens and it has passed.
        admitted: the request that policies and routes were asked about.
        request: as it is sent on.
        is_grpc: whether the client asked for a call of gRPC.
        until: when its token expires, in monotonic seconds.
        trials: what policies under trial have said of it.
        received_bytes, sent_bytes: of the request's body, of the response's.
        received_messages, sent_messages: in these; None where it is no call of gRPC.
        status: that the client got; 0 for none.
        flag, details: what the log says of it.
        failure: why the upstream could not be reached.
        response, trailers: what came back, as it goes to the client.
        began, answered_at: monotonic seconds; 0: no response has come.
        over: it has ended.
        host: the server's address.
        destination: whose that is.
        cluster, service: where a route leads; None: to what was called.
    """

    __slots__ = (
        "_interims", "added", "admitted", "answered_at", "asked", "began", "cluster", "destination",
        "details", "failure", "flag", "grpc_status", "host", "is_grpc", "over", "received_bytes",
        "received_messages", "request", "response", "sent_bytes", "sent_messages", "service", "status",
        "trailers", "trials", "until",
    )  # fmt: skip

    def __init__(self, request: Request, now: float) -> None:
        self._interims = 0
        self.added: Fields = NO_FIELDS
        self.asked: Request | None = None
        self.admitted = self.request = request
        self.until = inf
        self.over = False
        self.began = now
        self.answered_at = 0.0
        self.received_bytes = 0
        self.sent_bytes = 0
        grpc = self.is_grpc = request.is_grpc
        self.received_messages = MessageCounter() if grpc else None
        self.sent_messages = MessageCounter() if grpc else None
        self.status = 0
        self.flag = NO_FLAG
        self.details = "via_upstream"
        self.failure = ""
        self.response: Fields = ()
        self.trailers: Fields = ()
        self.grpc_status = ""
        self.host = ""
        self.destination: Workload | None = None
        self.cluster: str | None = None
        self.service: Service | None = None
        self.trials: Sequence[Tried] = NO_TRIALS

    @property
    def switched(self) -> bool:
        """Whether it is no HTTP any more."""
        return self.status == 101

    def note_received(self, payload: memoryview) -> None:
        """Some of the request's body has come."""
        self.received_bytes += len(payload)
        if self.received_messages is not None:
            self.received_messages.feed(payload)

    def note_sent(self, payload: memoryview) -> None:
        """Some of the response's body has."""
        self.sent_bytes += len(payload)
        if self.sent_messages is not None:
            self.sent_messages.feed(payload)

    def note_grpc(self, fields: Fields) -> None:
        """The response's headers or trailers, which may say how a call of gRPC has ended."""
        for name, value in fields:
            if name == b"grpc-status":
                self.grpc_status = value.decode("ascii", "replace")[:3]

    def note_interim(self) -> bool:
        """A response has come that is only interim. Returns whether that is not one too many."""
        self._interims += 1
        return self._interims <= _MOST_INTERIMS

    def note_end(self, reply: Reply, flags: list[str]) -> None:
        """It ends with a reply of ours, or as that says; `flags` are those from before."""
        self.flag, self.details = joined((*flags, reply.flag)), reply.details
        if self.answered_at:
            self.details = self.details.replace(_BEFORE, _AFTER)
