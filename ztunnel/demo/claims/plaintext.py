"""Who is not in the mesh: STRICT keeps it out, PERMISSIVE lets it in and counts it as what it is."""

from __future__ import annotations

from ztunnel.demo.claims.claim import Claim, Findings
from ztunnel.demo.claims.direct import STRICT
from ztunnel.demo.claims.stage import FAR, NEAR, Stage

_PLACES = ((NEAR, "orders-1"), (FAR, "orders-2"))
_PERMISSIVE = STRICT.replace("STRICT", "PERMISSIVE")


def _measure(stage: Stage, findings: Findings) -> None:
    caller = stage.caller("client")
    with stage.applied(STRICT):
        for place, pod in _PLACES:
            refused = caller.call(stage.pod(pod))
            findings.note(f"STRICT, {place}: {refused.error or 'let in'}", bool(refused.error))
        inside = stage.caller("load").call(stage.pod("orders-2"))
        findings.note(f"STRICT, from inside the mesh: {inside.error or 'answered'}", not inside.error)
        before = {node: _plain(stage, node) for node, _ in _PLACES}
        stage.change(_PERMISSIVE)
        for node, pod in _PLACES:
            let_in = caller.call(stage.pod(pod))
            counted = _plain(stage, node) - before[node]
            text = f"PERMISSIVE, {node}: {let_in.error or 'let in'}, {counted:.0f} connection counted as unknown"
            findings.note(text, not let_in.error and counted == 1)


def _plain(stage: Stage, node: str) -> float:
    return stage.samples(node).total(
        "istio_tcp_connections_opened_total",
        reporter="destination",
        source_workload="client",
        connection_security_policy="unknown",
    )


CLAIM = Claim(
    5,
    "STRICT refuses plaintext, PERMISSIVE counts it",
    "calls from a pod outside the mesh, and connections_opened with connection_security_policy=unknown",
    _measure,
)
