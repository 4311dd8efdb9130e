"""istiod's names, as dashboards ask for them."""

from __future__ import annotations

from ztunnel.control.figures import ControlFigures
from ztunnel.telemetry.figures import Figures
from ztunnel.xds.resource import ADDRESS, AUTHORIZATION


def test_names_types_and_histograms() -> None:
    figures = Figures()
    control = ControlFigures(figures, "1.0", lambda: 3)
    control.pushed(ADDRESS, 0.02, 0.3)
    control.pushed(AUTHORIZATION, 0.02, None)
    control.rejected(ADDRESS)
    control.left()
    control.acknowledged(0.4)
    read = {family.name: family.samples for family in figures.families()}
    assert read["pilot_xds"] == [(("1.0",), 3)]
    assert read["pilot_xds_pushes"] == [(("wds",), 1), (("wads",), 1)]
    assert read["pilot_total_xds_rejects"] == [(("wds",), 1)]
    assert read["ztunnel_control_slow_subscribers_total"] == [((), 1)]
    others = {sample.name: sample.value for family in figures.others() for sample in family.samples}
    assert others["pilot_proxy_convergence_time_count"] == 1
    assert others["ztunnel_control_push_seconds_sum"] == 0.4
    assert others["pilot_xds_push_time_count"] == 1
