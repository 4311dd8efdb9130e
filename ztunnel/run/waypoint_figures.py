"""What a waypoint counts of itself, beside its requests."""

from __future__ import annotations

from ztunnel.hbone.ledger import Ledger
from ztunnel.telemetry.figures import Figures
from ztunnel.waypoint.hold import Parts


def register_figures(figures: Figures, ledger: Ledger, parts: Parts) -> None:
    """Bring them to the register."""
    figures.gauge("ztunnel_hbone_sessions", "HBONE sessions that stand", lambda: ledger.sessions)
    figures.gauge("ztunnel_hbone_tunnels", "Tunnels on these sessions", lambda: ledger.streams)
    figures.gauge(
        "ztunnel_hbone_buffered_bytes", "Bytes that are held for who does not take them",
        lambda: ledger.buffered_bytes,
    )  # fmt: skip
    figures.counter(
        "ztunnel_hbone_glitches_total", "What peers did that no peer does", lambda: ledger.glitches
    )
    figures.counter(
        "ztunnel_waypoint_undetected_total",
        "Connections to unnamed ports of which nobody could tell within a second what is spoken on them",
        lambda: parts.undetected,
    )
    clusters = parts.here.clusters
    figures.counter(
        "ztunnel_waypoint_ejections_total",
        "Endpoints that were not chosen for a while because they failed (outlierDetection)",
        clusters.all_ejections,
    )
    figures.gauge("ztunnel_waypoint_ejected", "Endpoints of which that is so now", clusters.ejected)
    figures.counter(
        "ztunnel_waypoint_overflows_total",
        "How often a limit of a DestinationRule (connectionPool) was in the way of a connection or request",
        clusters.all_overflows,
        ("limit",),
    )
    figures.gauge(
        "ztunnel_waypoint_connections", "Clients' connections that speak HTTP", lambda: len(parts.common.live)
    )
    shadows, budget, broken = parts.shadows, parts.common.budget, parts.routers.broken
    figures.gauge("ztunnel_waypoint_mirrors", "Mirrored requests under way", lambda: shadows.live)
    figures.counter(
        "ztunnel_waypoint_mirrors_dropped_total",
        "Mirrored requests that were not sent, as too many were under way, or not to their end",
        lambda: shadows.dropped,
    )
    figures.counter(
        "ztunnel_waypoint_retries_refused_total",
        "Requests that were not tried again, as too many others were",
        lambda: budget.refused if budget is not None else 0,
    )
    figures.gauge(
        "ztunnel_waypoint_broken_routes", "Services whose routes cannot be compiled", lambda: len(broken)
    )
