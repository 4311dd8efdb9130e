"""How connections and bytes are counted."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from ztunnel.errors import Flag
from ztunnel.telemetry.figures import Figures
from ztunnel.telemetry.labels import ENDS, Reporter, TcpLabels
from ztunnel.telemetry.metrics import Measured, Row, TcpMetrics, render_rows

LABELS = TcpLabels("source", source_workload="client", destination_workload="server")


def counts(up=0, down=0):
    return SimpleNamespace(up=up, down=down)


def figures_of(row: Row) -> tuple[int, ...]:
    return row[2:]


def rows(metrics: TcpMetrics, now: float = 0.0) -> dict[TcpLabels, tuple[int, ...]]:
    return {row.labels: figures_of(row) for row in metrics.rows(now)}


def test_bytes_of_a_live_connection_are_seen_as_they_flow():
    metrics, flow = TcpMetrics(), counts()
    live = metrics.opened(LABELS, flow)
    flow.up, flow.down = 11, 22
    assert rows(metrics) == {LABELS: (1, 0, 0, 11, 22)}
    flow.down = 30
    metrics.closed(live)
    flow.down = 99  # nobody looks any more
    assert rows(metrics) == {LABELS: (1, 1, 0, 11, 30)}


def test_received_is_what_the_client_sends_for_both_reporters():
    metrics = TcpMetrics()
    for reporter in ENDS:
        metrics.opened(LABELS._replace(reporter=reporter.value), counts(up=1, down=2))
    assert [(row.received_bytes, row.sent_bytes) for row in metrics.rows(0)] == [(1, 2), (1, 2)]


def test_a_connection_that_ends_with_a_flag_is_closed_and_failed_under_it():
    metrics = TcpMetrics()
    metrics.closed(metrics.opened(LABELS, counts(5, 6)), Flag.DENY)
    assert rows(metrics) == {LABELS: (1, 0, 0, 5, 6), LABELS.flagged(Flag.DENY): (0, 1, 1, 0, 0)}


def test_a_connection_that_never_came_to_be_is_opened_closed_and_failed():
    metrics = TcpMetrics()
    metrics.failed(LABELS.flagged(Flag.CONNECT))
    assert rows(metrics) == {LABELS: (1, 0, 0, 0, 0), LABELS.flagged(Flag.CONNECT): (0, 1, 1, 0, 0)}


def test_closing_twice_counts_once():
    metrics = TcpMetrics()
    live = metrics.opened(LABELS, counts(1, 1))
    metrics.closed(live)
    metrics.closed(live, Flag.CONNECT)
    assert rows(metrics) == {LABELS: (1, 1, 0, 1, 1)}


def test_the_kernels_reports_may_come_in_any_order_and_count_once():
    metrics, measured = TcpMetrics(), Measured()
    live = metrics.opened(LABELS, measured)
    measured.measure(10, 20)
    measured.measure(30, 20)
    measured.measure(5, 5)
    assert rows(metrics) == {LABELS: (1, 0, 0, 30, 20)}
    metrics.closed(live)
    measured.measure(40, 40)
    assert rows(metrics) == {LABELS: (1, 1, 0, 30, 20)}


step = st.tuples(st.sampled_from(["open", "close", "flow", "fail"]), st.integers(0, 3), st.sampled_from(Flag))


@given(st.lists(step, max_size=60))
def test_counters_only_grow_and_what_is_open_is_opened_less_closed(steps):
    metrics = TcpMetrics()
    lives = []
    before: dict[TcpLabels, tuple[int, ...]] = {}
    for action, number, flag in steps:
        labels = LABELS._replace(source_app=str(number))
        if action == "open":
            flow = counts()
            lives.append((metrics.opened(labels, flow), flow))
        elif action == "fail":
            metrics.failed(labels.flagged(flag))
        elif action == "flow":
            for _, flow in lives:
                flow.up += number
        elif lives:
            metrics.closed(lives.pop()[0], flag)
        now = rows(metrics)
        assert all(new >= old for key, was in before.items() for new, old in zip(now[key], was, strict=True))
        assert sum(row[0] - row[1] for row in now.values()) == len(lives)
        before = now


def test_beyond_the_limit_connections_count_as_unknown_and_nothing_is_lost():
    metrics = TcpMetrics(series_limit=3)
    lives = [metrics.opened(LABELS._replace(source_workload=f"w{n}"), counts(1, 1)) for n in range(10)]
    for live in lives:
        metrics.closed(live)
    now = rows(metrics)
    assert len(now) == 4
    assert now[TcpLabels("source")] == (7, 7, 0, 7, 7)
    assert sum(row[0] for row in now.values()) == 10
    assert cut(metrics) == 7


def test_the_overflow_still_tells_reporters_and_flags_apart():
    metrics = TcpMetrics(series_limit=0)
    metrics.failed(LABELS.flagged(Flag.DENY))
    metrics.failed(LABELS._replace(reporter="destination").flagged(Flag.DENY))
    assert set(rows(metrics)) == {
        TcpLabels(reporter, response_flags=flag)
        for reporter in ("source", "destination")
        for flag in ("-", "DENY")
    }


def test_a_hundred_thousand_names_cost_no_more_than_the_limit():
    metrics = TcpMetrics(series_limit=100)
    for number in range(100_000):
        metrics.failed(TcpLabels("source", source_workload=str(number), response_flags="DENY"))
    assert len(rows(metrics)) <= 102


def cut(metrics: TcpMetrics) -> float:
    figures = Figures()
    metrics.register(figures)
    return {one.name: one.samples for one in figures.families()}["ztunnel_metrics_series_cut_total"][0][1]


def test_a_series_that_rests_for_long_is_dropped_unless_a_connection_is_open():
    metrics = TcpMetrics(idle_seconds=100)
    held = LABELS._replace(source_app="held")
    metrics.opened(held, counts())
    metrics.closed(metrics.opened(LABELS, counts(1, 1)))
    assert set(rows(metrics, 0)) == {LABELS, held}
    assert set(rows(metrics, 99)) == {LABELS, held}
    assert set(rows(metrics, 100)) == {held}
    metrics.opened(LABELS, counts())
    assert rows(metrics, 101)[LABELS] == (1, 0, 0, 0, 0)


def test_who_comes_back_after_its_series_was_dropped_has_another():
    """However often the same labels were used before."""
    metrics = TcpMetrics(idle_seconds=100)
    for _ in range(3):
        metrics.closed(metrics.opened(LABELS, counts(1, 1)))
    assert rows(metrics, 0)[LABELS] == (3, 3, 0, 3, 3)
    assert rows(metrics, 100) == {}
    metrics.opened(LABELS, counts())
    assert rows(metrics, 101)[LABELS] == (1, 0, 0, 0, 0)


def test_a_series_that_moves_is_kept():
    metrics = TcpMetrics(idle_seconds=100)
    for now in range(0, 1000, 90):
        metrics.closed(metrics.opened(LABELS, counts()))
        assert LABELS in rows(metrics, now)


def test_denials_are_figures():
    metrics, figures = TcpMetrics(), Figures()
    metrics.register(figures)
    metrics.denied(Reporter.DESTINATION, "default/deny-all")
    families = {one.name: dict(one.samples) for one in figures.families()}
    assert families["ztunnel_policy_denials_total"] == {("destination", "default/deny-all"): 1}


@pytest.mark.parametrize(("parse", "open_metrics"), [(parse_text, False), (parse_open_metrics, True)])
def test_prometheus_reads_the_five_families(parse, open_metrics):
    metrics = TcpMetrics()
    labels = LABELS._replace(source_workload='odd "name"\\\n')
    metrics.opened(labels, counts(11, 22))
    metrics.failed(labels.flagged(Flag.DENY))
    text = "".join(render_rows(list(metrics.rows(0)), open_metrics)) + ("# EOF\n" if open_metrics else "")
    read = {
        (sample.name, sample.labels["response_flags"]): (sample.value, sample.labels["source_workload"])
        for family in parse(text)
        for sample in family.samples
    }
    name = labels.source_workload
    assert read == {
        ("istio_tcp_connections_opened_total", "-"): (2, name),
        ("istio_tcp_connections_closed_total", "DENY"): (1, name),
        ("istio_tcp_connections_failed_total", "DENY"): (1, name),
        ("istio_tcp_received_bytes_total", "-"): (11, name),
        ("istio_tcp_sent_bytes_total", "-"): (22, name),
    }


def test_without_connections_there_is_no_family():
    assert list(render_rows([], False)) == []
