"""What is reported of the requests and connections to one destination, and how: decided when the operator's
wishes change, and only looked up when something ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ztunnel.l7.telemetry.attribute import Subject
from ztunnel.l7.telemetry.edits import Edits, TcpEdits
from ztunnel.l7.telemetry.expression import Expression
from ztunnel.l7.trace import Context
from ztunnel.telemetry.request_log import RequestRecord
from ztunnel.telemetry.span import Span
from ztunnel.waypoint.reporting.tracing import SpanTag

Enter = Callable[[list[tuple[bytes, bytes]], bytes], Context | None]
"""Begins a request's span, and writes that into its headers; None: it is none. It is below the one that they
name, or else that of its tunnel (a traceparent; empty: it has none)."""


class Log(NamedTuple):
    """One access log: what takes a record, with the span where there is one, and of which of them, None: of
    all."""

    take: Callable[[RequestRecord, Context | None], None]
    condition: Expression | None = None


class SpanPlan(NamedTuple):
    """Who takes spans, and what is in them."""

    put: Callable[[Span], None]
    tags: tuple[SpanTag, ...] = ()
    istio_tags: bool = True


class Scope:
    """Of one destination. It is changed in place, so whoever holds it goes by the wishes of the moment.

    Attributes:
        enter: None: nobody makes spans.
        spans: None: none are reported.
        logs: where lines go.
        edits, tcp: what is different about the metrics of requests and of connections; None: nothing.
    """

    __slots__ = ("edits", "enter", "logs", "spans", "tcp")

    def __init__(
        self, logs: tuple[Log, ...] = (), enter: Enter | None = None, spans: SpanPlan | None = None
    ) -> None:
        self.logs = logs
        self.enter = enter
        self.spans = spans
        self.edits: Edits | None = None
        self.tcp: TcpEdits | None = None

    def log(self, subject: Subject, context: Context | None = None) -> None:
        """Have the lines written that are wanted of it."""
        for take, condition in self.logs:
            if condition is None or condition.holds(subject):
                take(subject.record, context)

    def become(self, other: Scope) -> None:
        """The wishes are those of another one now."""
        self.logs, self.enter, self.spans = other.logs, other.enter, other.spans
        self.edits, self.tcp = other.edits, other.tcp
