"""Dashboards and alerts: what they ask for, and what is told to whom is woken by them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.deploy.chart import ROOT, of_kind, render
from tests.deploy.promql import ALERTS, DASHBOARDS, expressions, metrics, missing, shown

pytestmark = pytest.mark.timeout(60)

RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
SCRAPE = """
# HELP a_total A
# TYPE a_total counter
a_total{x="1",y="}\\" z"} 3.0
b 1.5e-06
h_bucket{le="0.1",type="wds"} 2
"""


@pytest.mark.parametrize(
    ("expression", "asked"),
    [
        ("a", {"a": set()}),
        ('sum by (x, instance) (rate(a_total{y="b, c{d}"}[5m]))', {"a_total": {"x", "y"}}),
        ("min(a or b) - time() < 30 * 86400", {"a": set(), "b": set()}),
        ("histogram_quantile(0.5, sum by (le) (rate(h_bucket[5m])))", {"h_bucket": set()}),
        ('a{x!="1"} / a{y=~"2"} > 0.2', {"a": {"x", "y"}}),
    ],
)
def test_what_an_expression_asks_for(expression: str, asked: dict[str, set[str]]):
    assert metrics(expression) == asked


def test_what_a_scrape_shows():
    assert shown(SCRAPE) == {"a_total": {"x", "y"}, "b": set(), "h_bucket": {"le", "type"}}


def test_what_is_missing_is_named():
    told = missing([SCRAPE])
    assert any("no metric ztunnel_control_plane_connected" in each for each in told)


def test_every_metric_is_one_that_the_program_has():
    sources = "".join(path.read_text() for path in (ROOT / "ztunnel").rglob("*.py"))
    library = {"process_cpu_seconds_total", "process_resident_memory_bytes"}
    named = {re.sub(r"_bucket$", "", name) for _, each in expressions() for name in metrics(each)} - library
    assert not [name for name in named if f'"{name}"' not in sources]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_what_to_do(rule: dict):
    assert rule["alert"].startswith("Ztunnel")
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert len(rule["annotations"]["runbook"]) > 30
    grouped = set(re.findall(r"\bby \(([^)]*)\)", rule["expr"])[:1])
    labels = {each.strip() for part in grouped for each in part.split(",")}
    used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert used <= labels, "a label that the expression does not keep"


def test_what_has_to_be_alerted_of_is():
    names = {rule["alert"] for rule in RULES}
    for wanted in (
        "CertificateNearExpiry",
        "WorldStale",
        "EnrolmentFails",
        "BudgetClosings",
        "PlaintextShare",
    ):
        assert f"Ztunnel{wanted}" in names


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_can_be_imported(path: Path):
    dashboard = json.loads(path.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    assert dashboard["uid"].startswith("ztunnel-")
    assert [each["name"] for each in dashboard["templating"]["list"]] == ["datasource", "instance"]
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        assert panel["title"]


def test_the_chart_carries_them():
    found = render("--api-versions=monitoring.coreos.com/v1", settings=["monitoring.dashboards=true"])
    assert of_kind(found, "PrometheusRule")["spec"] == yaml.safe_load(ALERTS.read_text())
    carried = of_kind(found, "ConfigMap", "ztunnel-dashboards")["data"]
    assert {name: json.loads(text) for name, text in carried.items()} == {
        f"ztunnel-{path.name}": json.loads(path.read_text()) for path in DASHBOARDS
    }
