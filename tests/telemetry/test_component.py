"""The figures of the proxy itself have the names of Istio's ztunnel."""

from __future__ import annotations

from ztunnel.telemetry.component import PodFigures, XdsFigures, register_build
from ztunnel.telemetry.figures import Figures


def shown(figures: Figures) -> dict[str, dict[tuple[str, ...], float]]:
    return {family.name: dict(family.samples) for family in figures.families()}


def test_the_build_is_told():
    figures = Figures()
    register_build(figures, "0.1.0")
    assert shown(figures) == {"istio_build": {("ztunnel", "0.1.0"): 1}}
    assert figures.families()[0].labels == ("component", "tag")


def test_messages_of_the_control_plane_are_counted_by_type():
    figures = Figures()
    xds = XdsFigures(figures)
    assert shown(figures) == {"ztunnel_control_plane_connected": {(): 0}}
    xds.received("type.googleapis.com/istio.workload.Address", 100)
    assert shown(figures)["ztunnel_control_plane_connected"] == {(): 1}
    xds.received("type.googleapis.com/istio.workload.Address", 20)
    xds.terminated("Reconnect")
    url = ("type.googleapis.com/istio.workload.Address",)
    assert shown(figures) == {
        "ztunnel_control_plane_connected": {(): 0},
        "istio_xds_connection_terminations_total": {("Reconnect",): 1},
        "istio_xds_message_total": {url: 2},
        "istio_xds_message_bytes_total": {url: 120},
    }


def test_pods_are_counted_as_they_come_and_go():
    figures = Figures()
    pods = PodFigures(figures)
    pods.started()
    pods.started()
    pods.stopped()
    assert figures.get_sample_value("workload_manager_active_proxy_count") == 1
    pods.show(4, 3)
    pods.enrolled(0.15)
    pods.missed()
    assert figures.get_sample_value("ztunnel_pod_enroll_seconds_bucket", {"le": "0.1"}) == 0
    assert figures.get_sample_value("ztunnel_pod_enroll_seconds_bucket", {"le": "0.2"}) == 1
    assert {one.name: one.samples[0].value for one in figures.others() if one.type != "histogram"} == {
        "workload_manager_active_proxy_count": 4,
        "workload_manager_pending_proxy_count": 3,
        "workload_manager_proxies_started": 2,
        "workload_manager_proxies_stopped": 1,
        "ztunnel_pod_start_misses": 1,
    }
