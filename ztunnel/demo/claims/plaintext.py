"""Who is not in the mesh: STRICT keeps it out, PERMISSIVE lets it in and counts it as what it is."""

from __future__ import annotations

from ztunnel.demo.claims.claim import Claim, Findings
from ztunnel.demo.claims.direct import STRICT
from ztunnel.demo.claims.enforce import enforcing
from ztunnel.demo.claims.shop import FAR, NEAR, Shop
from ztunnel.demo.samples import Samples
from ztunnel.errors import Flag
from ztunnel.model.connection import Security
from ztunnel.telemetry.labels import Reporter

_PLACES = ((NEAR, "orders-1"), (FAR, "orders-2"))
_PERMISSIVE = STRICT.replace("STRICT", "PERMISSIVE")


def _measure(shop: Shop, findings: Findings) -> None:
    caller = shop.caller("client")
    before = {node: shop.baseline(node) for node, _ in _PLACES}

    def counted(node: str, flag: Flag) -> int:
        return shop.reaches(lambda: _closed(shop.samples(node), flag) - _closed(before[node], flag), 1)

    with enforcing(shop) as enforce:
        enforce(STRICT)
        for node, pod in _PLACES:
            refused = caller.call(shop.pod(pod))
            count = counted(node, Flag.DENY)
            text = f"STRICT, {node}: {refused.error or 'let in'}, {count} counted as {Flag.DENY}"
            findings.note(text, bool(refused.error) and count == 1)
        inside = shop.caller("load").call(shop.pod("orders-2"))
        findings.note(f"STRICT, from inside the mesh: {inside.error or 'answered'}", not inside.error)
        enforce(_PERMISSIVE)
        for node, pod in _PLACES:
            let_in = caller.call(shop.pod(pod))
            count = counted(node, Flag.NONE)
            text = f"PERMISSIVE, {node}: {let_in.error or 'let in'}, {count} counted as plaintext"
            findings.note(text, not let_in.error and count == 1)


def _closed(samples: Samples, flag: Flag) -> int:
    """Connections from outside that came in as plaintext, by how they ended."""
    total = samples.total(
        "istio_tcp_connections_closed_total",
        reporter=Reporter.DESTINATION.value,
        source_workload="client",
        connection_security_policy=Security.UNKNOWN.value,
        response_flags=flag.value,
    )
    return int(total)


CLAIM = Claim(
    5,
    "STRICT refuses plaintext, PERMISSIVE counts it",
    "calls from a pod outside the mesh; connections_closed with connection_security_policy=unknown",
    _measure,
)
