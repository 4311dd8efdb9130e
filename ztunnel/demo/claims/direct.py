"""Same node: the kernel carries calls by itself, and they are authorized and counted all the same."""

from __future__ import annotations

import json
from functools import partial
from ipaddress import ip_address

from ztunnel.demo.capture import capture
from ztunnel.demo.claims.claim import Claim, Findings
from ztunnel.demo.claims.enforce import enforcing
from ztunnel.demo.claims.secrecy import count_marks, new_mark
from ztunnel.demo.claims.shares import is_even, tolerance
from ztunnel.demo.claims.shop import NAMESPACE, NEAR, Shop
from ztunnel.demo.command import module_command
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.samples import Samples
from ztunnel.model.address import Endpoint
from ztunnel.state.lookup import HBONE_PORT
from ztunnel.telemetry.labels import ENDS, Reporter

COUNT, AT_ONCE, ENDPOINTS = 10_000, 128, 4
_MARKS = 3000
_SPREAD_SECONDS = 60.0

STRICT = f"""
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: {NAMESPACE}}}
spec: {{mtls: {{mode: STRICT}}}}
"""

DENY = f"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: orders-not-for-load, namespace: {NAMESPACE}}}
spec:
  selector: {{matchLabels: {{app: orders}}}}
  action: DENY
  rules:
    - from:
        - source: {{principals: [cluster.local/ns/{NAMESPACE}/sa/load]}}
"""
DENY_KEY = f"{NAMESPACE}/orders-not-for-load"


def open_direct(shop: Shop, pod: str, name: str, to: Endpoint) -> Endpoint:
    """Open a connection that the kernel carries: the second of its pair. Gives the client's end of it.

    Raises:
        LaboratoryFailed: it could not be made.
    """
    caller = shop.caller(pod)
    first = caller.call(to)
    opened = caller.open(name, to)
    error = first.error or opened.error
    if error:
        raise LaboratoryFailed(f"{pod} cannot call {to}: {error}")
    return Endpoint(ip_address(opened.local[0]), opened.local[1])


def is_direct(shop: Shop, client: str, local: Endpoint, server: str, to: Endpoint) -> bool:
    """Whether client and server hold the two ends of one connection, and the proxy none of it."""
    near = {(each.local, each.remote) for each in shop.sockets(client)}
    far = {(each.local, each.remote) for each in shop.sockets(server)}
    captured = any(mine == local and other.ip == local.ip for mine, other in near)
    return (local, to) in near and (to, local) in far and not captured


def _measure(shop: Shop, findings: Findings) -> None:
    to = shop.pod("orders-1")
    _count(shop, findings, to)
    with enforcing(shop) as enforce:
        enforce(DENY)
        first, second = shop.caller("load").call(to), shop.caller("load").call(to)
        findings.note(
            f"a DENY policy: {first.error or 'answered'}, then at connect {second.error or 'answered'}",
            bool(first.error) and second.error == "ECONNREFUSED",
        )
        enforce(STRICT)
        _encrypt(shop, findings, to)
    _spread(shop, findings)


def _count(shop: Shop, findings: Findings, to: Endpoint) -> None:
    """The first connection of the pair is the proxy's, the second the kernel's: the bytes of both count."""
    caller, mark = shop.caller("load"), new_mark()
    before = shop.baseline(NEAR)
    errors = [caller.open("first", to).error or caller.exchange("first", mark, _MARKS // 3).error]
    caller.close("first")
    opened = caller.open("second", to)
    local = Endpoint(ip_address(opened.local[0] or "0.0.0.0"), opened.local[1])
    errors += [opened.error or caller.exchange("second", mark, _MARKS).error]
    found = is_direct(shop, "load", local, "orders-1", to)
    findings.note(f"one connection {local} - {to}, no proxy in it", found and not any(errors))
    caller.close("second")
    size = len(mark) * (_MARKS // 3 + _MARKS)
    for reporter in ENDS:
        counted = [
            shop.reaches(partial(_counted, shop, before, reporter, column), size) for column in _COLUMNS
        ]
        shown = " and ".join(map(str, counted))
        findings.note(f"{size} bytes each way, counted by the {reporter}: {shown}", counted == [size, size])


_COLUMNS = ("istio_tcp_received_bytes_total", "istio_tcp_sent_bytes_total")


def _counted(shop: Shop, before: Samples, reporter: Reporter, column: str) -> int:
    """The bytes of the pair that were counted since `before`."""
    labels = {"reporter": reporter.value, "source_workload": "load", "destination_workload": "orders-1"}
    return int(shop.samples(NEAR).total(column, **labels) - before.total(column, **labels))


def _encrypt(shop: Shop, findings: Findings, to: Endpoint) -> None:
    """With STRICT the same call leaves nothing readable even on the bridge of the node."""
    caller, mark, names = shop.caller("load"), new_mark(), shop.laboratory.names
    with capture(names.netns(names.node(NEAR))) as seen:
        sent = caller.open("strict", to)
        sent = sent if sent.error else caller.exchange("strict", mark, 30)
        tunnels = [each for each in shop.sockets("load") if each.remote == Endpoint(to.ip, HBONE_PORT)]
        caller.close("strict")
        marks = count_marks(seen, mark)
    text = f"STRICT: {marks} marks on the node's own bridge, {len(tunnels)} TLS session on {HBONE_PORT}"
    findings.note(text, marks == 0 and bool(tunnels) and not sent.error)


def _spread(shop: Shop, findings: Findings) -> None:
    vip = shop.vip("orders")
    command = module_command("ztunnel.demo.claims.load", vip.ip, vip.port)
    ended = shop.laboratory.exec("load", [*command, str(AT_ONCE), str(COUNT)], timeout=_SPREAD_SECONDS)
    if ended.returncode:
        raise LaboratoryFailed(f"the calls to {vip} ended: {ended.stderr.strip()}")
    said = json.loads(ended.stdout)
    shares = " ".join(str(share) for _, share in sorted(said["answers"].items()))
    text = (
        f"{COUNT} calls of a VIP: {shares} (each {COUNT // ENDPOINTS} +- {tolerance(COUNT, ENDPOINTS):.0f})"
    )
    findings.note(text, is_even(said["answers"], COUNT, ENDPOINTS))
    if said["errors"]:
        findings.note(f"errors: {said['errors']}", False)


CLAIM = Claim(
    2,
    "On one node calls are direct, and still authorized and counted",
    "both ends by sock_diag, metrics before and after, policies, a capture on the node's bridge, "
    "calls of a VIP with one endpoint here and three elsewhere",
    _measure,
)
