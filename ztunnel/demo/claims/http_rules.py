"""Behind a waypoint: who may ask what of a service is decided request by request, and nobody gets past it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from ztunnel.demo import run
from ztunnel.demo.attached import is_attached, is_detached
from ztunnel.demo.claims.claim import Claim, Findings
from ztunnel.demo.claims.shop import NAMESPACE, Shop
from ztunnel.demo.cluster import Pod
from ztunnel.demo.command import is_waypoint

_USE = "istio.io/use-waypoint"
_NAME, _SERVICE, _CLIENT, _OTHER = "gate", "orders", "load", "payments-1"
_DENIED = "rbac_access_denied_matched_policy[none]"
_CALLS = 20
_CALL_SECONDS = 2

_GATEWAY = f"""apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {_NAME}, namespace: {NAMESPACE}, labels: {{istio.io/waypoint-for: service}}}}
spec:
  gatewayClassName: ztunnel-waypoint
  listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]
"""
_POLICY = f"""apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: open-to-one, namespace: {NAMESPACE}}}
spec:
  targetRefs: [{{kind: Service, group: "", name: {_SERVICE}}}]
  rules:
    - from: [{{source: {{principals: ["*/ns/{NAMESPACE}/sa/{_CLIENT}"]}}}}]
      to: [{{operation: {{methods: [GET], paths: [/open/*]}}}}]
"""


def _measure(shop: Shop, findings: Findings) -> None:
    with _standing(shop) as waypoint:
        answers = [_ask(shop, _CLIENT, "/open/1") for _ in range(_CALLS)]
        text = f"{answers.count('200')} of {_CALLS} requests are answered by way of it"
        findings.note(text, answers.count("200") == _CALLS)
        shop.laboratory.apply(_POLICY)
        try:
            shop.until("the policy counts", lambda: _ask(shop, _CLIENT, "/closed") == "403")
            refused = 1
            for who, method, path, wanted in (
                (_CLIENT, "GET", "/open/1", "200"),
                (_CLIENT, "GET", "/closed", "403"),
                (_CLIENT, "GET", "/open/../closed", "403"),
                (_CLIENT, "DELETE", "/open/1", "403"),
                (_OTHER, "GET", "/open/1", "403"),
            ):
                status = _ask(shop, who, path, method)
                findings.note(f"{who}: {method} {path}: {status}", status == wanted)
                refused += status == "403"
            # Lines are written together, a moment later.
            shop.until("its log says why of each", lambda: _denied(shop, waypoint) >= refused)
            findings.note(f"its log says why of {_denied(shop, waypoint)} requests")
        finally:
            shop.laboratory.apply(_POLICY, delete=True)
        shop.until("the policy is gone", lambda: _ask(shop, _CLIENT, "/closed") == "200")
        with _stopped(shop, waypoint):
            status = _ask(shop, _CLIENT, "/open/1")
            findings.note(f"while it stands still: {status}, not past it", status in ("000", "503"))
        shop.until("it goes on", lambda: _ask(shop, _CLIENT, "/open/1") == "200")


@contextmanager
def _standing(shop: Shop) -> Iterator[Pod]:
    """The service behind a waypoint of its own, for the length of the block."""
    laboratory = shop.laboratory
    laboratory.apply(_GATEWAY)
    try:
        laboratory.label("service", f"{NAMESPACE}/{_SERVICE}", {_USE: _NAME})
        try:
            shop.until("every node sends calls to the waypoint", lambda: _all(shop, is_attached))
            yield next(pod for pod in laboratory.cluster().pods if is_waypoint(pod))
        finally:
            laboratory.label("service", f"{NAMESPACE}/{_SERVICE}", {_USE: None})
    finally:
        laboratory.apply(_GATEWAY, delete=True)
        # Claims that wait for a change of the nodes' worlds are not to take this one for theirs.
        shop.until("no node knows the waypoint", lambda: _all(shop, is_detached))


def _denied(shop: Shop, waypoint: Pod) -> int:
    """How many requests its log says were refused, and why."""
    return sum(_DENIED in line for line in shop.laboratory.pod_log(waypoint.full_name).splitlines())


def _all(shop: Shop, holds: Callable[[dict[str, Any], str, Collection[str], str], bool]) -> bool:
    """Whether it holds on every node."""
    return all(holds(shop.dump(node), NAMESPACE, (_SERVICE,), _NAME) for node in shop.nodes)


@contextmanager
def _stopped(shop: Shop, waypoint: Pod) -> Iterator[None]:
    """Its process stands still for the length of the block."""
    found = run.processes(shop.laboratory.names.pod_cgroup(waypoint.node.name, waypoint.uid))
    for pid in found:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in found:
            os.kill(pid, signal.SIGCONT)


def _ask(shop: Shop, pod: str, path: str, method: str = "GET") -> str:
    """The status that a request gets; 000 for none."""
    words = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", str(_CALL_SECONDS)]
    words += ["--path-as-is", "-X", method, f"http://{shop.vip(_SERVICE).ip}{path}"]
    return shop.laboratory.exec(f"{NAMESPACE}/{pod}", words).stdout


CLAIM = Claim(
    14,
    "Behind a waypoint who may ask what is decided request by request",
    f"a Gateway before {_SERVICE}, and a policy for one caller, method and path; the waypoint stands still",
    _measure,
)
