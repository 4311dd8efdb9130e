"""Scraping: a real Prometheus finds all that is ours, and answers what Istio's dashboards ask."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.cluster.alerting import FIRING, rule_tests
from tests.cluster.apps import LOAD, PORT, Apps, namespace
from tests.cluster.cluster import Cluster, wait_until
from tests.cluster.conftest import Mesh
from tests.cluster.prometheus import ANNOTATED, Prometheus, program, running
from tests.cluster.test_3_policy import allow, answered
from tests.deploy.promql import ALERTS, expressions, missing

pytestmark = pytest.mark.timeout(300)

SECONDS = 40
IN_TROUBLE = ("no metric ztunnel_pods_pending",)
"""What has samples only while something is wrong; tests/deploy/test_monitoring.py holds its name."""


def test_the_rules_are_valid_for_prometheus() -> None:
    done = subprocess.run([program("promtool"), "check", "rules", ALERTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_by_what_it_is_for_and_none_of_what_is_over(tmp_path: Path) -> None:
    names = {
        rule["alert"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
    }
    assert FIRING.keys() == names
    file = tmp_path / "tests.json"
    file.write_text(json.dumps(rule_tests()))
    done = subprocess.run([program("promtool"), "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_answers_what_istios_dashboards_ask(
    mesh: Mesh, cluster: Cluster, apps: Apps, nodes: tuple[str, str], tmp_path: Path
) -> None:
    apps.label("ambient")
    apps.start(apps.server("a", nodes[0]), apps.server("b", nodes[1]), apps.service("web", "b"))
    address = apps.addresses("b")[0]
    where = f'destination_workload_namespace="{apps.namespace}"'
    with (
        running(cluster, tmp_path) as prometheus,
        namespace(cluster, f"{apps.namespace}-out") as outside,
        apps.running("a", LOAD, apps.service_addresses("web")[0], 80, 0.1) as through_service,
    ):
        outside.start(outside.server("x", nodes[0]))
        with outside.running("x", LOAD, address, PORT, 0.3) as plain:
            nodes_of = {each["metadata"]["name"]: each["spec"]["nodeName"] for each in mesh.pods("node")}
            control = {each["metadata"]["name"] for each in mesh.pods("control")}
            scraped = {
                ANNOTATED: nodes_of.keys() | control,
                "podMonitor/ztunnel-system/ztunnel/0": nodes_of.keys(),
                "serviceMonitor/ztunnel-system/ztunnel-control/0": control,
            }
            wait_until("every pod of ours is scraped", lambda: healthy(prometheus) == scraped, SECONDS, 0.5)
            by_monitor = prometheus.query('up{job="podMonitor/ztunnel-system/ztunnel/0"}')
            assert {labels["pod"]: labels["node"] for labels, _ in by_monitor} == nodes_of
            opened = f"istio_tcp_connections_opened_total{{{where}}}"
            wait_until(
                "plaintext was counted", lambda: share(prometheus, where) not in (None, 1.0), SECONDS, 0.5
            )

            # Which workloads talk (Kiali's and Istio's mesh dashboard).
            edges = prometheus.query(
                f"sum by (source_workload, destination_workload, destination_service_name, reporter) "
                f"(rate({opened}[30s]))"
            )
            assert {
                (labels["source_workload"], labels["destination_workload"], labels["reporter"])
                for labels, value in edges
                if value > 0
            } >= {("a", "b", "source"), ("a", "b", "destination")}
            assert any(labels["destination_service_name"] == "web" for labels, _ in edges)

            # Bytes by who sent them.
            principal = f"spiffe://cluster.local/ns/{apps.namespace}/sa/default"
            received = prometheus.query(
                f"sum by (source_principal) (rate(istio_tcp_received_bytes_total{{{where}, "
                f'reporter="destination"}}[30s]))'
            )
            assert {labels["source_principal"]: value for labels, value in received}[principal] > 0

            # The share of mutual TLS.
            mutual = share(prometheus, where)
            assert mutual is not None
            assert 0.3 < mutual < 1
            plain.end()
        through_service.end()

        # A failed connection, without which there is nothing to be seen of failures.
        cluster.apply(allow(apps, "nobody"))
        wait_until("a call is refused", lambda: not answered(apps, "a", address), SECONDS)

        # All that dashboards and alerts ask for is there, and no alert of ours is wrong about a healthy mesh.
        # A page of metrics is kept for a second.
        wait_until(f"all is there: {lacking(mesh)}", lambda: not lacking(mesh), 10, 0.3)
        for where_asked, expression in expressions():
            plain_expression = expression.replace("$__rate_interval", "30s").replace("$instance", ".*")
            prometheus.query(plain_expression)
            assert where_asked
        firing = [
            each["labels"]["alertname"]
            for each in prometheus.ask("alerts")["alerts"]
            if each["state"] == "firing"
        ]
        assert firing == []


def lacking(mesh: Mesh) -> list[str]:
    """What dashboards and alerts ask for, and no page of ours has."""
    scrapes = [mesh.cluster.scrape(each["metadata"]["name"], 15020) for each in mesh.pods("node")]
    scrapes += [mesh.cluster.scrape(each["metadata"]["name"], 15014) for each in mesh.pods("control")]
    return [each for each in missing(scrapes) if not each.endswith(IN_TROUBLE)]


def healthy(prometheus: Prometheus) -> dict[str, set[str]]:
    """The pods that are scraped, by the job that does it."""
    found: dict[str, set[str]] = {}
    for each in prometheus.targets():
        if each["health"] == "up":
            found.setdefault(each["labels"]["job"], set()).add(each["labels"]["instance"])
    return found


def share(prometheus: Prometheus, where: str) -> float | None:
    """Of connections by mutual TLS among all, as Istio's dashboards ask."""
    opened = f'istio_tcp_connections_opened_total{{{where}, reporter="destination"%s}}[30s]'
    mutual = opened % ', connection_security_policy="mutual_tls"'
    every = opened % ""
    found = prometheus.query(f"sum(rate({mutual})) / sum(rate({every}))")
    return found[0][1] if found else None
