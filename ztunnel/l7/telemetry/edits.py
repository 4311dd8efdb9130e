"""What an operator wants to be different about the labels of metrics (Telemetry's `overrides`), compiled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from ztunnel.l7.telemetry.attribute import Subject
from ztunnel.l7.telemetry.expression import Expression
from ztunnel.l7.telemetry.merging import MetricPlan
from ztunnel.model.telemetry import REQUEST_METRICS, TCP_METRICS
from ztunnel.model.workload import Workload
from ztunnel.telemetry.labels import UNKNOWN, TcpLabels
from ztunnel.telemetry.request_counts import Edited, RequestLabels
from ztunnel.telemetry.request_log import RequestRecord

_LONGEST: Final = 128
"""Characters of a label that an expression makes."""

_NO_PLAN: Final = MetricPlan()


class _Group(NamedTuple):
    """Families with the same labels. `fields` are those of the usual labels by their places, None: taken
    away."""

    families: int
    fields: tuple[tuple[int, Expression | None], ...]
    extra: tuple[tuple[str, Expression], ...]


class Edits:
    """Of the metrics of requests; without any groups nothing is counted."""

    def __init__(self, plans: Mapping[str, MetricPlan] | None, node: Workload | None = None) -> None:
        """`plans` by metric; None: nothing is to be counted. `node` is the waypoint."""
        shapes: dict[tuple[tuple[str, str | None], ...], int] = {}
        for bit, metric in enumerate(REQUEST_METRICS):
            plan = plans.get(metric, _NO_PLAN) if plans is not None else MetricPlan(disabled=True)
            if not plan.disabled:
                shape = tuple(sorted(plan.tags.items()))
                shapes[shape] = shapes.get(shape, 0) | 1 << bit
        self._groups = tuple(_group(shape, families, node) for shape, families in shapes.items())

    def of(self, subject: Subject) -> list[Edited]:
        """The label sets of a request, each of some families."""
        found = []
        for families, fields, extra in self._groups:
            labels = subject.labels
            if fields:
                values = list(labels)
                for at, expression in fields:
                    values[at] = "" if expression is None else _label(expression, subject)
                labels = RequestLabels(*values)
            others = tuple([(name, _label(expression, subject)) for name, expression in extra])
            grpc = subject.labels.request_protocol == "grpc"
            found.append(Edited(labels, others, families, grpc))
        return found


def edits_of(plans: Mapping[str, MetricPlan] | None, node: Workload | None = None) -> Edits | None:
    """What is different about the metrics of requests; None: nothing."""
    if plans is not None and not any(
        metric in plans and _differs(plans[metric]) for metric in REQUEST_METRICS
    ):
        return None
    return Edits(plans, node)


class TcpEdits:
    """Of the metrics of connections, which have Istio's labels and no others, all the same ones."""

    def __init__(self, plan: MetricPlan, node: Workload | None = None) -> None:
        """`node` is the waypoint."""
        self.counted = not plan.disabled
        self._fields = tuple(
            (name, None if value is None else Expression(value, node))
            for name, value in plan.tags.items()
            if name in TcpLabels._fields
        )

    def of(self, labels: TcpLabels, record: RequestRecord) -> TcpLabels:
        """The labels of a connection."""
        if not self._fields:
            return labels
        known = labels._asdict()
        shared = {name: known[name] for name in RequestLabels._fields if name in known}
        subject = Subject(record, RequestLabels(**{**shared, "request_protocol": "tcp"}))
        changed = {
            name: "" if expression is None else _label(expression, subject)
            for name, expression in self._fields
        }
        return TcpLabels(**{**known, **changed})


def tcp_edits_of(plans: Mapping[str, MetricPlan] | None, node: Workload | None = None) -> TcpEdits | None:
    """What is different about the metrics of connections; None: nothing. What is not the same for all four is
    different for none."""
    if plans is None:
        return TcpEdits(MetricPlan(disabled=True))
    first = plans.get(TCP_METRICS[0], _NO_PLAN)
    same = all(plans.get(metric, _NO_PLAN) == first for metric in TCP_METRICS)
    return TcpEdits(first, node) if same and _differs(first) else None


def _differs(plan: MetricPlan) -> bool:
    return plan.disabled or bool(plan.tags)


def _group(shape: tuple[tuple[str, str | None], ...], families: int, node: Workload | None) -> _Group:
    names = RequestLabels._fields
    fields = [
        (names.index(name), None if value is None else Expression(value, node))
        for name, value in shape
        if name in names
    ]
    extra = [
        (name, Expression(value, node)) for name, value in shape if value is not None and name not in names
    ]
    return _Group(families, tuple(fields), tuple(extra))


def _label(expression: Expression, subject: Subject) -> str:
    """What has no value is `unknown`, as with Istio's stats filter."""
    return (expression.text_of(subject) or UNKNOWN)[:_LONGEST]
