"""The figures of a running node that no single part owns."""

from __future__ import annotations

from ztunnel.run.build import Node, Proxy
from ztunnel.telemetry.labels import Reporter


def register_figures(node: Node) -> None:
    """Bring them to the register."""
    figures = node.reporting.figures
    register_common(node)
    node.pods.register(figures)
    node.forwarding.register(figures)
    figures.counter(
        "ztunnel_redirect_outcomes_total",
        "Why each eBPF hook returned",
        lambda: [((name,), count) for name, count in node.redirection.outcomes().items() if count],
        ["outcome"],
    )
    figures.gauge(
        "ztunnel_direct_flows", "Flows that the kernel carries by itself", lambda: len(node.follower)
    )
    figures.gauge(
        "ztunnel_outside_calls",
        "Open connections to addresses outside the mesh that do not pass the proxy",
        lambda: len(node.outside),
    )
    figures.gauge(
        "ztunnel_outside_left_alone",
        "1 while calls to addresses outside the mesh do not pass the proxy, 0 while they are captured",
        lambda: int(node.addresses.left_alone),
    )


def register_common(node: Proxy) -> None:
    """Those of any node proxy, wherever its pods come from."""
    figures, ledger = node.reporting.figures, node.ledger
    figures.counter(
        "ztunnel_stalls_total",
        "How often the proxy stalled for more than three seconds and went on",
        lambda: node.watchdog.stalls,
    )
    exits = node.exits.count()
    figures.counter(
        "ztunnel_stall_exits_total",
        "How often a proxy of this node has ended because it stood still for five seconds",
        lambda: exits,
    )
    figures.counter(
        "ztunnel_given_up_total",
        "Accepted connections whose caller had gone before the proxy handled them",
        lambda: node.engine.given_up,
    )
    figures.gauge(
        "istio_tcp_sockets_open",
        "The number of currently open TCP sockets.",
        lambda: [((Reporter.SOURCE,), len(node.outbound.calls)), ((Reporter.DESTINATION,), len(node.live))],
        ["reporter"],
    )
    figures.gauge("ztunnel_hbone_sessions", "HBONE sessions that stand", lambda: ledger.sessions)
    figures.gauge("ztunnel_hbone_tunnels", "Tunnels on these sessions", lambda: ledger.streams)
    figures.gauge(
        "ztunnel_hbone_buffered_bytes",
        "Bytes that applications have not taken, on whatever way",
        lambda: ledger.buffered_bytes,
    )
    figures.counter(
        "ztunnel_buffers_exhausted_total",
        "Connections refused or ended, the newest of whoever held the most, for want of room for bytes",
        lambda: ledger.held.gave_way_total + ledger.held.refused_total,
    )
    figures.counter(
        "ztunnel_hbone_glitches_total", "What peers did that no peer does", lambda: ledger.glitches
    )
    figures.counter(
        "ztunnel_hbone_calmed_total", "Sessions closed for too many glitches", lambda: ledger.calmed
    )
    figures.counter(
        "ztunnel_hbone_slowed_total",
        "Tunnels that waited because too many others of their peer had been reset early or refused",
        lambda: ledger.slowed,
    )
    figures.counter(
        "ztunnel_retries_total",
        "Calls that were tried again: their peer was busy, or another endpoint could answer",
        lambda: ledger.retried,
    )
    room = node.outbound.calls.room
    figures.gauge("ztunnel_connections", "Connections that the proxy carries", lambda: len(room))
    figures.counter(
        "ztunnel_connections_exhausted_total",
        "Connections that were ended, the newest of whoever held the most, because no more could be held",
        lambda: room.gave_way_total + room.refused_total,
    )
    figures.counter(
        "ztunnel_hbone_handshakes_failed_total",
        "Connections on 15008 that became no session",
        lambda: node.handshakes.failed_total,
    )
    figures.gauge(
        "ztunnel_certificate_expiry_seconds",
        "Until the certificate of an identity expires; below zero where there is none",
        lambda: [
            ((str(each.identity),), -1.0 if each.seconds is None else each.seconds)
            for each in node.certificates.expiring()
        ],
        ["identity"],
    )
    figures.counter(
        "ztunnel_certificates_fetched_total",
        "Certificates that were issued",
        lambda: node.certificates.fetched_total,
    )
    figures.counter(
        "ztunnel_certificates_failed_total",
        "Failed attempts to have one",
        lambda: node.certificates.failed_total,
    )
