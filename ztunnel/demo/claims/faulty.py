"""A faulty object costs only itself: what is good counts, and what is broken stays what it was."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ztunnel.demo.claims.claim import Claim, Findings
from ztunnel.demo.claims.direct import DENY
from ztunnel.demo.claims.enforce import enforced
from ztunnel.demo.claims.shop import FAR, NAMESPACE, Shop

_SECONDS = 1.0
_READINESS_PORT = 15021
_FAULTS = "ztunnel_manifest_faults"

_BROKEN = f"""apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: {NAMESPACE}}}
spec: {{mtls: {{mode: strict}}}}
---
kind: [
"""
_NOBODY = f"""apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: nobody, namespace: {NAMESPACE}}}
spec: {{action: DENY, selector: {{matchLabels: {{app: frontend}}}}, rules: [{{}}]}}
"""


def _measure(shop: Shop, findings: Findings) -> None:
    orders, frontend = shop.vip("orders"), shop.vip("frontend")
    with _file(shop, "broken") as broken:
        broken.write_text(_BROKEN)
        shop.until("the nodes count two faults", lambda: _faults(shop) == {2})
        named = shop.dump(FAR)["manifests"]
        findings.note(named["faults"][0].partition(";")[0], len(named["faults"]) == 2)
        pods = sum(pod.namespace == NAMESPACE for pod in shop.cluster.pods)
        marked = len(named["policyFaults"][0]["pods"])
        findings.note(f"{marked} of {pods} pods of its scope are marked", marked == pods)
        called = shop.caller("load").call(orders)
        findings.note(f"load calls orders: {called.error or 'answered'}", not called.error)
        with enforced(shop, DENY) as begun:
            seconds = time.monotonic() - begun
            refused = shop.caller("load").call(orders).error
            text = f"a good DENY beside it counts after {seconds * 1000:.0f} ms: {refused or 'answered'}"
            findings.note(text, bool(refused) and seconds < _SECONDS)
    with _file(shop, "policy") as policy:
        policy.write_text(_NOBODY)
        shop.until("the DENY counts", lambda: bool(shop.caller("load").call(frontend).error))
        policy.write_text(_NOBODY.replace("rules:", "rulez:"))
        shop.until("the nodes count the fault", lambda: 0 not in _faults(shop))
        refused = shop.caller("load").call(frontend).error
        findings.note(f"a DENY that was broken in the editing: {refused or 'answered'}", bool(refused))
        ready = shop.laboratory.node_get(FAR, "/healthz/ready", _READINESS_PORT).splitlines()[0]
        findings.note(f"readiness of {FAR}: {ready}", ready == "ready")
    shop.until("the DENY is gone", lambda: not shop.caller("load").call(frontend).error)


@contextmanager
def _file(shop: Shop, name: str) -> Iterator[Path]:
    """A manifest of its own in the folder that the node proxies watch; gone, with its faults, at the end."""
    path = shop.laboratory.names.manifests / f"claim-{name}.yml"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        shop.until("the nodes have no faults", lambda: _faults(shop) == {0})


def _faults(shop: Shop) -> set[int]:
    """How many each node counts."""
    return {int(shop.samples(node).total(_FAULTS)) for node in shop.nodes}


CLAIM = Claim(
    11,
    "A faulty object costs only itself, and keeps its last good version",
    "a misspelt PeerAuthentication and a document that is no YAML in the folder; a good DENY beside them; a "
    "DENY that is broken while it counts",
    _measure,
)
