"""Policies under trial: every connection is counted, and one of a kind in a minute is logged."""

from __future__ import annotations

from tests.builders import connection, workload
from ztunnel.authz.verdict import Trial
from ztunnel.telemetry.figures import Figures
from ztunnel.telemetry.journey import Journey
from ztunnel.telemetry.labels import Reporter
from ztunnel.telemetry.trial import Trials

CALL = connection("10.0.0.1", "10.0.1.1:8080", "default/client")
JOURNEY = Journey(
    Reporter.DESTINATION,
    CALL.destination,
    None,
    workload("server").at("10.0.1.1"),
    source_identity=CALL.identity,
)
REFUSED, ADMITTED = Trial("default/d", True, "rule 1 matches"), Trial("default/a", False, "")


class Said:
    def __init__(self) -> None:
        self.now = 100.0
        self.lines: list[dict[str, str]] = []
        self.figures = Figures()
        self.trials = Trials(self.figures, self.say, lambda: self.now)

    def say(self, message: str, **fields: str) -> None:
        self.lines.append({"message": message, **fields})

    def counted(self) -> dict[tuple[str, ...], float]:
        return dict(self.figures.families()[0].samples)


def test_each_connection_is_counted_by_policy_and_result() -> None:
    said = Said()
    for _ in range(3):
        said.trials.count((REFUSED, ADMITTED), JOURNEY, CALL.source)
    assert said.counted() == {("default/d", "denied"): 3, ("default/a", "allowed"): 3}


def test_the_first_of_a_kind_in_a_minute_is_logged() -> None:
    said = Said()
    for now in (100.0, 101.0, 159.0, 161.0):
        said.now = now
        said.trials.count((REFUSED, ADMITTED), JOURNEY, CALL.source)
    assert (
        said.lines
        == [
            {
                "message": "dry-run: connection would be refused",
                "policy": "default/d",
                "why": "rule 1 matches",
                "src": "spiffe://cluster.local/ns/default/sa/client",
                "dst": "default/server",
            }
        ]
        * 2
    )


def test_of_very_many_kinds_only_some_are_logged() -> None:
    said = Said()
    for n in range(3000):
        said.trials.count((Trial(f"default/{n}", True, ""),), JOURNEY, CALL.source)
    assert len(said.lines) == 1000
    said.now += 61.0
    said.trials.count((Trial("default/new", True, ""),), JOURNEY, CALL.source)
    assert len(said.lines) == 1001


def test_a_request_at_a_waypoint_is_called_that() -> None:
    said = Said()
    trials = Trials(Figures(), said.say, lambda: said.now, "request")
    trials.note((REFUSED,), "who", "what")
    assert said.lines[0]["message"] == "dry-run: request would be refused"
    assert (said.lines[0]["src"], said.lines[0]["dst"]) == ("who", "what")
