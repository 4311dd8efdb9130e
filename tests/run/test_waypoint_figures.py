"""What a waypoint counts of itself is registered, and read when somebody asks."""

from __future__ import annotations

from tests.hbone.conftest import contexts, lab
from tests.hbone.peers import Lab
from tests.waypoint.mesh import Mesh
from ztunnel.run.waypoint_figures import register_figures
from ztunnel.telemetry.figures import Figures

__all__ = ["contexts", "lab"]


def test_figures_are_those_of_the_moment(lab: Lab) -> None:
    mesh, figures = Mesh(lab), Figures()
    register_figures(figures, lab.ledger, mesh.parts)

    def figure(name: str) -> float:
        (found,) = [each for each in figures.families() if each.name == name]
        return sum(value for _, value in found.samples)

    assert figure("ztunnel_waypoint_connections") == figure("ztunnel_waypoint_undetected_total") == 0
    mesh.parts.undetected += 1
    mesh.parts.shadows.dropped += 2
    client, _ = mesh.open("10.1.0.1:80")
    client.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    mesh.asked()
    assert figure("ztunnel_waypoint_connections") == 1
    assert figure("ztunnel_waypoint_undetected_total") == 1
    assert figure("ztunnel_waypoint_mirrors_dropped_total") == 2
    assert figure("ztunnel_hbone_tunnels") > 0
