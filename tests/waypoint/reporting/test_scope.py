"""What is reported of one destination."""

from __future__ import annotations

from tests.l7.telemetry.test_attribute import EMPTY, SUBJECT
from ztunnel.l7.telemetry.edits import edits_of, tcp_edits_of
from ztunnel.l7.telemetry.expression import Expression
from ztunnel.l7.trace import Context
from ztunnel.waypoint.reporting.scope import Log, Scope, SpanPlan

CONTEXT = Context("4b" * 16, "aa" * 8, "", True)


def test_each_log_takes_what_its_condition_lets_through() -> None:
    taken: list[tuple[str, int, Context | None]] = []
    every = Log(lambda record, context: taken.append(("every", record.status, context)))
    errors = Log(
        lambda record, context: taken.append(("errors", record.status, context)),
        Expression("response.code >= 500"),
    )
    scope = Scope((every, errors))
    scope.log(SUBJECT, CONTEXT)
    scope.log(EMPTY)
    assert taken == [("every", 503, CONTEXT), ("errors", 503, CONTEXT), ("every", 0, None)]


def test_it_becomes_another_one_in_place() -> None:
    scope, spans = Scope(), SpanPlan(lambda span: None)
    other = Scope((Log(lambda record, context: None),), lambda fields: CONTEXT, spans)
    other.edits, other.tcp = edits_of(None), tcp_edits_of(None)
    scope.become(other)
    for name in Scope.__slots__:
        assert getattr(scope, name) is getattr(other, name)
        assert getattr(scope, name) is not None
