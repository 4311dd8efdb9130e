"""Accounts from their opening to their end: metrics once, one line, and none that nobody wants."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.builders import identity, service, workload
from ztunnel.errors import ConnectionFailed, Denied, Drained, HandedOver, Unreachable
from ztunnel.flow.flow import Counts
from ztunnel.model.address import parse_endpoint
from ztunnel.model.connection import Direction, Security
from ztunnel.telemetry.figures import Figures
from ztunnel.telemetry.journey import Journey
from ztunnel.telemetry.labels import Reporter
from ztunnel.telemetry.level import Level, Levels
from ztunnel.telemetry.metrics import TcpMetrics
from ztunnel.telemetry.report import Report

CLIENT = workload("client")
SERVER = workload("server")
WEB = service("web")
NOW_NS = 1_767_312_000_000_000_000  # 2026-01-02
SOURCE = parse_endpoint("10.0.0.1:4000")
JOURNEY = Journey(
    Reporter.SOURCE,
    parse_endpoint("10.0.0.2:15008"),
    CLIENT,
    SERVER,
    WEB,
    CLIENT.identity,
    SERVER.identity,
    Security.MUTUAL_TLS,
    "10.0.0.2:8080",
)


class Office:
    """A report with what it wrote and counted, and a clock."""

    def __init__(self, levels: str = "info", as_json: bool = False) -> None:
        self.lines: list[str] = []
        self.levels = Levels(levels)
        self.metrics = TcpMetrics()
        self.seconds = 0.0
        self.report = Report(
            self.metrics,
            self.lines.append,
            lambda: self.seconds,
            lambda: NOW_NS,
            as_json,
            lambda level: self.levels.enabled("access", level),
        )

    def rows(self) -> dict[str, tuple[int, int, int, int, int]]:
        """Opened, closed, failed, received, sent; by response flag."""
        return {row.labels.response_flags: tuple(row[2:]) for row in self.metrics.rows(0.0)}

    def denials(self) -> list[object]:
        figures = Figures()
        self.metrics.register(figures)
        return self.metrics._denials.samples()


def test_a_connection_is_counted_when_it_opens_and_when_it_ends() -> None:
    office, counts = Office(), Counts()
    account = office.report.open(JOURNEY, SOURCE, counts)
    assert office.rows() == {"-": (1, 0, 0, 0, 0)}
    assert office.lines == []
    counts.up, counts.down = 10, 20
    office.seconds = 1.5
    office.report.close(account)
    office.report.close(account, Unreachable("late"))
    assert office.rows() == {"-": (1, 1, 0, 10, 20)}
    assert office.lines == [
        "2026-01-02T00:00:00.000000Z\tinfo\taccess\tconnection complete\t"
        'src.addr=10.0.0.1:4000 src.workload="client" src.namespace="default" '
        f'src.identity="{CLIENT.identity}" src.cluster="Kubernetes" '
        f'dst.addr=10.0.0.2:15008 dst.hbone_addr=10.0.0.2:8080 dst.service="{WEB.hostname}" '
        'dst.workload="server" dst.namespace="default" '
        f'dst.identity="{SERVER.identity}" dst.cluster="Kubernetes" '
        'direction="outbound" bytes_sent=10 bytes_recv=20 duration="1500ms"'
    ]


@pytest.mark.parametrize(
    ("error", "flag"), [(Unreachable("gone"), "CONNECT"), (Denied("no", "default/no"), "DENY")]
)
def test_an_error_is_a_flag_and_a_line(error: ConnectionFailed, flag: str) -> None:
    office = Office()
    office.report.close(office.report.open(JOURNEY, SOURCE, Counts()), error)
    assert office.rows() == {"-": (1, 0, 0, 0, 0), flag: (0, 1, 1, 0, 0)}
    assert f'error="{error}"' in office.lines[0]
    assert "\terror\taccess" in office.lines[0]


def test_a_drained_connection_is_no_failure_but_says_why() -> None:
    office = Office()
    office.report.close(
        office.report.open(JOURNEY, SOURCE, Counts()), Drained("connection closed due to connection drain")
    )
    assert office.rows() == {"-": (1, 1, 0, 0, 0)}
    assert 'error="connection closed due to connection drain"' in office.lines[0]


def test_a_refusal_is_opened_closed_and_failed_at_once() -> None:
    office = Office()
    office.report.refuse(JOURNEY, SOURCE, Denied("no", "default/no"))
    office.report.refuse(JOURNEY, SOURCE, Denied("no", "default/no"))
    assert office.rows() == {"-": (2, 0, 0, 0, 0), "DENY": (0, 2, 2, 0, 0)}
    assert len(office.lines) == 2
    assert 'bytes_sent=0 bytes_recv=0 duration="0ms"' in office.lines[0]
    assert list(office.denials()) == [(("source", "default/no"), 2)]


def test_without_tls_the_line_names_no_identity() -> None:
    office = Office()
    office.report.refuse(
        replace(JOURNEY, security=Security.UNKNOWN, service=None), SOURCE, Unreachable("gone")
    )
    assert "identity" not in office.lines[0]
    assert "dst.service" not in office.lines[0]


def test_what_goes_another_way_under_the_same_labels_is_one_connection() -> None:
    office = Office()
    account = office.report.open(JOURNEY, SOURCE, Counts())
    office.report.reroute(account, replace(JOURNEY, hbone_address="10.0.0.2:9090"))
    assert office.rows() == {"-": (1, 0, 0, 0, 0)}
    office.report.close(account)
    assert "dst.hbone_addr=10.0.0.2:9090" in office.lines[0]


def test_what_goes_another_way_under_other_labels_moves_there() -> None:
    office, counts = Office(), Counts()
    account = office.report.open(JOURNEY, SOURCE, counts)
    office.report.reroute(account, replace(JOURNEY, destination_workload=None))
    counts.up = 7
    office.report.close(account)
    office.report.reroute(account, JOURNEY)
    received = {
        row.labels.destination_workload_namespace: row.received_bytes for row in office.metrics.rows(0.0)
    }
    assert received == {"default": 0, "unknown": 7}
    assert len(office.lines) == 1


def test_an_early_denial_is_a_line_without_a_metric() -> None:
    office = Office()
    office.report.deny_early(Direction.INBOUND, SOURCE, JOURNEY.destination, "who are you?")
    assert office.rows() == {}
    assert "\twarn\taccess\tconnection failed\t" in office.lines[0]


@pytest.mark.parametrize(
    ("level", "written"),
    [
        (Level.DEBUG, ["opened", "complete", "complete", "failed"]),
        (Level.INFO, ["complete", "complete", "failed"]),
        (Level.WARN, ["complete", "failed"]),
        (Level.ERROR, ["complete"]),
        (Level.OFF, []),
    ],
)
def test_lines_that_nobody_wants_are_not_written(level: Level, written: list[str]) -> None:
    office = Office(f"info,access={level.word}")
    office.report.close(office.report.open(JOURNEY, SOURCE, Counts()))
    office.report.refuse(JOURNEY, SOURCE, Unreachable("gone"))
    office.report.deny_early(Direction.INBOUND, SOURCE, JOURNEY.destination, "who are you?")
    assert [line.split("\t")[3].partition(" ")[2] for line in office.lines] == written


def test_a_level_that_is_changed_counts_from_the_next_line_on() -> None:
    office = Office()
    account = office.report.open(JOURNEY, SOURCE, Counts())
    office.levels.change("access=off")
    office.report.close(account)
    assert office.lines == []
    assert office.rows() == {"-": (1, 1, 0, 0, 0)}


@pytest.mark.parametrize("as_json", [False, True])
def test_failures_of_one_cause_and_source_are_gathered_and_all_counted(as_json: bool) -> None:
    office = Office(as_json=as_json)
    other = parse_endpoint("10.0.0.9:1")
    for _ in range(500):
        office.report.refuse(JOURNEY, SOURCE, Denied("no", "shop/deny"))
        office.report.close(office.report.open(JOURNEY, SOURCE, Counts()), Unreachable("gone"))
        office.report.deny_early(Direction.INBOUND, SOURCE, JOURNEY.destination, "TLS handshake: bad")
    office.report.refuse(JOURNEY, other, Denied("no", "shop/deny"))
    assert len(office.lines) == 31
    assert "10.0.0.9" in office.lines[-1]
    office.seconds += 1
    office.report.flush()
    mark = '"count":490' if as_json else " count=490"
    assert [mark in line for line in office.lines[31:]] == [True] * 3
    assert office.rows()["DENY"][2] == 501
    assert office.rows()["CONNECT"][1] == 500


def test_connections_that_end_in_order_are_not_gathered() -> None:
    office = Office()
    for _ in range(50):
        office.report.close(office.report.open(JOURNEY, SOURCE, Counts()))
    assert len(office.lines) == 50


def test_lines_can_be_json() -> None:
    office = Office("debug", as_json=True)
    office.report.close(office.report.open(JOURNEY, SOURCE, Counts()))
    office.report.deny_early(Direction.OUTBOUND, SOURCE, JOURNEY.destination, "no")
    assert [json.loads(line)["message"] for line in office.lines] == [
        "connection opened",
        "connection complete",
        "connection failed",
    ]


def test_without_a_log_there_are_only_metrics() -> None:
    metrics = TcpMetrics()
    report = Report(metrics, None, lambda: 0.0, lambda: NOW_NS)
    report.close(report.open(JOURNEY, SOURCE, Counts()))
    report.refuse(JOURNEY, SOURCE, Unreachable("gone"))
    report.deny_early(Direction.OUTBOUND, SOURCE, JOURNEY.destination, "no")
    assert sum(row.opened for row in metrics.rows(0.0)) == 2


def test_unless_told_otherwise_openings_are_not_logged() -> None:
    lines: list[str] = []
    report = Report(TcpMetrics(), lines.append, lambda: 0.0, lambda: NOW_NS)
    report.close(report.open(replace(JOURNEY, source_identity=identity("a/b")), SOURCE, Counts()))
    assert len(lines) == 1


def test_what_a_successor_goes_on_with_is_closed_without_a_word() -> None:
    office = Office()
    account = office.report.open(JOURNEY, SOURCE, Counts())
    office.report.close(account, HandedOver())
    office.report.refuse(JOURNEY, SOURCE, HandedOver())
    assert office.lines == []
    [row] = office.metrics.rows(0.0)
    assert (row.opened, row.closed) == (1, 1)
