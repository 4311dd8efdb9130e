"""Identity decides: who may call, who may not and why, and whom a client believes to have reached."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ztunnel.demo.claims.certify import account, certify
from ztunnel.demo.claims.claim import Claim, Findings
from ztunnel.demo.claims.enforce import enforced
from ztunnel.demo.claims.impostor import LISTENING
from ztunnel.demo.claims.shop import FAR, LABEL, NAMESPACE, NEAR, Shop
from ztunnel.demo.command import module_command
from ztunnel.demo.samples import Samples
from ztunnel.model.address import Endpoint
from ztunnel.model.identity import SpiffeId

_AT_ONCE_SECONDS = 0.5
_IMPOSTOR = "ledger-1"
_NONE_ALLOWED = "allow policies exist, but none allowed"

_DENY_KEY = f"{NAMESPACE}/payments-not-for-load"
_DENY = f"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: payments-not-for-load, namespace: {NAMESPACE}}}
spec:
  selector: {{matchLabels: {{app: payments}}}}
  action: DENY
  rules:
    - from:
        - source: {{principals: [cluster.local/ns/{NAMESPACE}/sa/load]}}
"""

_NODE = "apiVersion: v1\nkind: Node\nmetadata: {name: node-3}\n"
_POD = f"""
apiVersion: v1
kind: Pod
metadata: {{name: {_IMPOSTOR}, namespace: {NAMESPACE}, labels: {{app: ledger, {LABEL}: none}}}}
spec:
  serviceAccountName: ledger
  nodeName: node-3
  containers:
    - name: ledger
      image: ztunnel/impostor
      command: %s
      ports: [{{containerPort: 8080}}]
"""


def _measure(shop: Shop, findings: Findings) -> None:
    payments, before = shop.vip("payments"), _denials(shop.baseline(FAR))
    allowed = shop.caller("frontend-1").call(payments)
    findings.note(f"frontend calls payments: {allowed.error or 'answered'}", not allowed.error)
    _refuse(shop, findings, payments, _NONE_ALLOWED)
    with enforced(shop, _DENY):
        _refuse(shop, findings, payments, f"explicitly denied by: {_DENY_KEY}")
        counted = shop.reaches(lambda: _denials(shop.samples(FAR)) - before, 1)
        findings.note(f'ztunnel_policy_denials_total{{policy="{_DENY_KEY}"}} +{counted}', counted == 1)
    _impersonate(shop, findings)


def _refuse(shop: Shop, findings: Findings, to: Endpoint, reason: str) -> None:
    """The caller that may not; the destination's log has to say why."""
    known = len(shop.laboratory.node_log(FAR))
    refused = shop.caller("load").call(to)
    text = f"load calls payments: {refused.error or 'answered'} after {refused.seconds * 1000:.0f} ms"
    findings.note(text, bool(refused.error) and refused.seconds < _AT_ONCE_SECONDS)
    shop.until(
        f"the log of {FAR} says {reason!r}", lambda: reason in shop.laboratory.node_log(FAR)[known:], 2.0
    )
    findings.note(f"log: {reason}")


def _denials(samples: Samples) -> int:
    return int(samples.total("ztunnel_policy_denials_total", reporter="destination", policy=_DENY_KEY))


def _impersonate(shop: Shop, findings: Findings) -> None:
    """A pod that was announced as `ledger` proves to be `orders`, then, to see that it was that, `ledger`."""
    with _impostor(shop) as (to, directory):
        received, error = _meet(shop, to, directory, account("orders"))
        text = f"ledger's address with a valid certificate of orders: {received} bytes of a tunnel"
        findings.note(text, received == 0)
        findings.note(f"log: {error}", error.endswith("got .../orders"))
        received, _ = _meet(shop, to, directory, account("ledger"))
        findings.note(f"the same with ledger's own: {received} bytes", received > 0)


def _meet(shop: Shop, to: Endpoint, directory: Path, identity: SpiffeId) -> tuple[int, str]:
    """Call the impostor, who proves `identity`: bytes of a tunnel that it got, and what the client logged."""
    certify(shop, directory, identity)
    log, said = len(shop.laboratory.node_log(NEAR)), len(_said(shop))
    shop.caller("load").call(to)
    shop.until(f"a client met {identity}", lambda: len(_said(shop)) > said)
    shop.until(
        "the client's log tells of it", lambda: f"dst.addr={to.ip}:" in shop.laboratory.node_log(NEAR)[log:]
    )
    return sum(_said(shop)[said:]), _error(shop.laboratory.node_log(NEAR)[log:])


@contextmanager
def _impostor(shop: Shop) -> Iterator[tuple[Endpoint, Path]]:
    """A pod whose own process holds port 15008, on a node of which the proxy is dead, so that nobody enrolls
    the pod: its address, and its files."""
    laboratory = shop.laboratory
    directory = laboratory.names.directory / "impostor"
    directory.mkdir(mode=0o700)
    text = _POD % json.dumps(module_command("ztunnel.demo.claims.impostor", 15008, directory))
    try:
        laboratory.apply(_NODE)
        laboratory.kill_node("node-3")
        laboratory.apply(text)
        name = f"{NAMESPACE}/{_IMPOSTOR}"
        shop.until("the impostor listens", lambda: LISTENING in laboratory.pod_log(name))
        laboratory.label("pod", name, {LABEL: "ambient"})
        shop.until("the nodes take the impostor for a member", lambda: all(_known(shop, "HBONE")))
        yield Endpoint(laboratory.pod(name).addresses[0], 8080), directory
    finally:
        laboratory.apply(_NODE, delete=True)
        shutil.rmtree(directory)
        shop.until("the nodes have forgotten the impostor", lambda: not any(_known(shop, "")))


def _known(shop: Shop, protocol: str) -> list[bool]:
    """Whether each node has the impostor down as a workload, and as one that speaks this protocol."""
    return [
        any(
            each["name"] == _IMPOSTOR and protocol in each["protocol"]
            for each in shop.dump(node)["workloads"]
        )
        for node in shop.nodes
    ]


def _said(shop: Shop) -> list[int]:
    """How many bytes each client sent to the impostor."""
    lines = shop.laboratory.pod_log(f"{NAMESPACE}/{_IMPOSTOR}").splitlines()
    return [int(json.loads(line)["bytes"]) for line in lines if line.startswith("{")]


def _error(log: str) -> str:
    return log.rpartition('error="')[2].partition('"')[0].replace(str(account("")), ".../")


CLAIM = Claim(
    4,
    "Identity decides, at both ends",
    "calls of two accounts, log and metric; a pod with a certificate of another account than its own",
    _measure,
)
