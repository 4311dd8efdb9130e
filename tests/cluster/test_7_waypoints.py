"""Waypoints: run for a Gateway, attached, replaced and detached under load, never called around; routes and
policies at them. The tests share one namespace, which each leaves without a waypoint or with one."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from tests.cluster.apps import LOAD, OPT_IN, Apps, Running, namespace
from tests.cluster.cluster import Cluster, ClusterError, Object, is_ready, wait_until
from tests.cluster.conftest import SYSTEM, Mesh

pytestmark = pytest.mark.timeout(400)

NAME = "waypoint"
USE = "istio.io/use-waypoint"
LABEL = f"gateway.networking.k8s.io/gateway-name={NAME}"
SECONDS = 20
START_SECONDS = 60
DRAIN_SECONDS = 20
EVERY_SECONDS = 0.03
MANY = """
import http.client, json, sys
host, path, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
connection, seen = http.client.HTTPConnection(host, 80, timeout=5), []
for _ in range(times):
    connection.request("GET", path)
    seen.append(json.loads(connection.getresponse().read())["pod"])
print(json.dumps(seen))
"""
STATUS = """
import http.client, sys
host, path, bearer = sys.argv[1:4]
connection = http.client.HTTPConnection(host, 80, timeout=5)
try:
    connection.request("GET", path, headers={"authorization": f"Bearer {bearer}"} if bearer else {})
    print(connection.getresponse().status)
except OSError:
    print(0)
"""
KINDS = "deployments,services,serviceaccounts,poddisruptionbudgets"


@pytest.fixture(scope="module")
def shop(mesh: Mesh, cluster: Cluster) -> Iterator[Apps]:
    """Pods a and d call service web, whose pods b and c are on both nodes."""
    first, last = cluster.nodes()[0], cluster.nodes()[-1]
    with namespace(cluster, f"ztunnel-test-{os.getpid()}-waypoints", {OPT_IN: "ambient"}) as apps:
        apps.start(
            apps.server("a", first),
            apps.server("b", last, {"app": "b"}),
            apps.server("c", first, {"app": "b", "version": "v2"}),
            apps.account("other"),
            apps.server("d", last, account="other"),
            apps.service("web", "b"),
        )
        for address in apps.service_addresses("web"):
            wait_until(f"{address} answers", lambda at=address: answers(apps, at), SECONDS)
        yield apps


@pytest.fixture
def attached(shop: Apps) -> Apps:
    """The same, with a waypoint that serves."""
    if bound(shop) != ("True", "WaypointAccepted"):
        apply(shop, "--enroll-namespace", "--wait")
        wait_until("it is attached", lambda: bound(shop) == ("True", "WaypointAccepted"), SECONDS)
    return shop


def answers(apps: Apps, address: str) -> bool:
    return "pod" in apps.call("a", address, 80)


def pods(shop: Apps) -> list[Object]:
    """The waypoint's, without those that are ending."""
    found = shop.cluster.pods(shop.namespace, LABEL)
    return [each for each in found if "deletionTimestamp" not in each["metadata"]]


def ready(shop: Apps, count: int) -> bool:
    found = pods(shop)
    return len(found) == count and all(map(is_ready, found))


def requests(shop: Apps) -> float:
    """That the waypoint's pods that serve have passed on."""
    total = 0.0
    for each in filter(is_ready, pods(shop)):
        try:
            page = shop.cluster.scrape(each["metadata"]["name"], 15020, namespace=shop.namespace)
        except ClusterError:  # it has ended meanwhile
            continue
        total += sum(
            float(value) for value in re.findall(r"^istio_requests_total{.*} (\S+)$", page, re.MULTILINE)
        )
    return total


def bound(shop: Apps) -> tuple[str, str]:
    """Status and reason of what the service says of its waypoint."""
    found = shop.cluster.get("service", "web", shop.namespace)["status"].get("conditions", [])
    said = [each for each in found if each["type"] == "istio.io/WaypointBound"]
    return (said[0]["status"], said[0]["reason"]) if said else ("", "")


def apply(shop: Apps, *words: str) -> None:
    done = shop.cluster.ztunnel("waypoint", "apply", "-n", shop.namespace, *words)
    assert done.returncode == 0, done.stdout + done.stderr


def annotate(shop: Apps, **annotations: str) -> None:
    words = [f"ztunnel.io/{name}={value}" for name, value in annotations.items()]
    shop.cluster.call("-n", shop.namespace, "annotate", "gateway", NAME, "--overwrite", *words)


def detach(shop: Apps) -> None:
    shop.cluster.call("label", "namespace", shop.namespace, f"{USE}-")
    wait_until("it is detached", lambda: bound(shop) == ("", ""), SECONDS)


@contextmanager
def loaded(shop: Apps) -> Iterator[dict[str, Running]]:
    """Calls without end, by both families."""
    with ExitStack() as stack:
        yield {
            address: stack.enter_context(shop.running("a", LOAD, address, 80, EVERY_SECONDS))
            for address in shop.service_addresses("web")
        }


def test_until_it_was_ready_calls_go_as_before_and_from_then_on_by_it_or_not_at_all(
    mesh: Mesh, shop: Apps, cluster: Cluster
) -> None:
    addresses = shop.service_addresses("web")
    gateway = yaml.safe_load(cluster.ztunnel("waypoint", "generate", "-n", shop.namespace).stdout)
    gateway["metadata"]["annotations"] = {"ztunnel.io/replicas": "0"}
    cluster.apply(gateway)
    cluster.call("label", "namespace", shop.namespace, f"{USE}={NAME}")
    wait_until("it is said", lambda: bound(shop) == ("False", "WaypointIsNotReady"), SECONDS)
    for address in addresses:
        assert answers(shop, address)
    annotate(shop, replicas="1")
    wait_until("it is attached", lambda: bound(shop) == ("True", "WaypointAccepted"), START_SECONDS)
    wait_until("it is called", lambda: answers(shop, addresses[0]) and requests(shop) > 0, SECONDS)

    # What somebody changes is put right.
    cluster.call("-n", shop.namespace, "delete", "deployment", NAME, "--wait=false")
    wait_until("it is there again", lambda: ready(shop, 1), START_SECONDS)
    for address in addresses:
        wait_until("it is called again", lambda at=address: answers(shop, at), SECONDS)

    annotate(shop, replicas="0")
    # It waits for nobody, as all connections to its servers are spare, and not for as long as it may.
    wait_until("it has no pod", lambda: not cluster.pods(shop.namespace, LABEL), DRAIN_SECONDS)
    for address in addresses:
        wait_until("calls are refused", lambda at=address: not answers(shop, at), SECONDS)
    done = cluster.ztunnel("waypoint", "delete", "--all", "-n", shop.namespace)
    assert (done.returncode, USE in done.stderr) == (1, True), done.stdout + done.stderr
    done = cluster.ztunnel("waypoint", "delete", "--all", "--force", "-n", shop.namespace)
    assert done.returncode == 0, done.stderr
    wait_until("it is said", lambda: bound(shop) == ("False", "WaypointMissing"), SECONDS)
    before = {each["metadata"]["name"] for each in mesh.pods("control")}
    cluster.call("-n", SYSTEM, "delete", "pod", *before, "--wait=false")
    mesh.wait()
    wait_until(
        "every node proxy has taken over what they serve",
        lambda: cluster.ztunnel("proxy-status").returncode == 0,
        START_SECONDS,
    )
    for address in addresses:
        assert not answers(shop, address), "control planes that have never seen the Gateway refuse as well"
    detach(shop)
    for address in addresses:
        wait_until("calls go as before", lambda at=address: answers(shop, at), SECONDS)


def test_attached_replaced_and_detached_under_load_no_request_fails(mesh: Mesh, shop: Apps) -> None:
    cluster, marks = shop.cluster, {}
    with loaded(shop) as load:
        marks["apply"] = time.time()
        apply(shop, "--enroll-namespace", "--wait")
        wait_until("calls go through it", lambda: requests(shop) > 20, SECONDS)
        assert bound(shop) == ("True", "WaypointAccepted")
        annotate(shop, replicas="2")
        marks["restart of the control plane"] = time.time()
        cluster.call("-n", SYSTEM, "rollout", "restart", "deployment/ztunnel-control")
        wait_until("there are two", lambda: ready(shop, 2), START_SECONDS)
        before, revision = names(shop), generation(shop)
        mesh.wait()
        assert (names(shop), generation(shop)) == (before, revision), "another control plane changes nothing"
        marks["replacement"] = time.time()
        cluster.call("-n", shop.namespace, "delete", "pod", min(before), "--wait=false")
        template = {"metadata": {"annotations": {"again": "yes"}}}
        words = ("patch", "deployment", NAME, "-p", json.dumps({"spec": {"template": template}}))
        cluster.call("-n", shop.namespace, *words)
        wait_until("both are others", lambda: ready(shop, 2) and not before & names(shop), START_SECONDS)
        wait_until("calls go through them", lambda: requests(shop) > 20, SECONDS)
        marks["detach"] = time.time()
        detach(shop)
        marks["delete"] = time.time()
        done = cluster.ztunnel("waypoint", "delete", NAME, "-n", shop.namespace)
        assert done.returncode == 0, done.stdout + done.stderr
        wait_until("what was made for it is gone", lambda: not made(shop), SECONDS)
        said = {address: each.end() for address, each in load.items()}
    print({address: (each["seen"], each["failed"], each["slowest"]) for address, each in said.items()})
    failed = {address: each["errors"] for address, each in said.items() if each["failed"]}
    assert failed == {}, (marks, failed)
    assert min(each["seen"] for each in said.values()) > 200


def generation(shop: Apps) -> int:
    return int(shop.cluster.get("deployment", NAME, shop.namespace)["metadata"]["generation"])


def names(shop: Apps) -> set[str]:
    return {each["metadata"]["name"] for each in pods(shop)}


def made(shop: Apps) -> list[str]:
    words = ("get", KINDS, "-n", shop.namespace, "-l", LABEL, "-o", "name")
    return shop.cluster.call(*words).split()


def test_routes_of_both_apis_hold_at_a_waypoint_and_say_so(attached: Apps) -> None:
    """A VirtualService with weights, retries and an answer, and an HTTPRoute with a backend that is not
    there."""
    shop, cluster, name = attached, attached.cluster, attached.namespace
    addresses, answer = shop.service_addresses("web"), {"by": "the waypoint"}
    subsets = [{"name": each, "labels": {"version": each}} for each in ("v1", "v2", "v3")]
    cluster.apply(
        istio(name, "DestinationRule", {"host": "web", "subsets": subsets}),
        istio(name, "VirtualService", {"hosts": ["web"], "http": rules_with(answer)}),
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "web", "namespace": name},
            "spec": {
                "parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80}],
                "rules": [
                    {"matches": [{"path": {"value": "/gone"}}], "backendRefs": [{"name": "no", "port": 80}]},
                    {"backendRefs": [{"name": "web", "port": 80}]},
                ],
            },
        },
    )
    for address in addresses:
        wait_until("its answer", lambda at=address: shop.call("a", at, 80, "/answer") == answer, SECONDS)
        assert seen(shop, address, "/v2", 8) == {"c"}
        assert seen(shop, address, "/both", 24) == {"b", "c"}
        assert seen(shop, address, "/retried", 24) == {"b", "c"}
        assert seen(shop, address, "/who", 24) == {"b", "c"}
    expected = [("Accepted", "Accepted"), ("ResolvedWaypoints", "ResolvedWaypoints"),
                ("ResolvedRefs", "BackendNotFound")]  # fmt: skip
    wait_until("the route's status", lambda: said(shop, "httproute") == expected, SECONDS)
    accepted, invalid = [("WaypointAccepted", "Accepted")], [("WaypointAccepted", "Invalid")]
    wait_until("the other's", lambda: said(shop, "virtualservice") == accepted, SECONDS)

    # What is wrong keeps its last good version, and says so.
    wrong = [{"match": [{"uri": {"regex": "(?=a)"}}], "directResponse": {"status": 200}}]
    cluster.apply(istio(name, "VirtualService", {"hosts": ["web"], "http": wrong}))
    wait_until("that it is wrong", lambda: said(shop, "virtualservice") == invalid, SECONDS)
    assert shop.call("a", addresses[0], 80, "/answer") == answer
    cluster.call("-n", name, "delete", "virtualservice,httproute,destinationrule", "web")
    wait_until("calls go as before", lambda: "pod" in shop.call("a", addresses[0], 80, "/answer"), SECONDS)


def rules_with(answer: Object) -> list[Object]:
    """Those of a VirtualService."""

    def to(subset: str, weight: int = 0) -> Object:
        return {"destination": {"host": "web", "subset": subset}, "weight": weight}

    who = {"uri": "/who"}
    return [
        {"match": [{"uri": {"prefix": "/v2"}}], "rewrite": who, "route": [to("v2")]},
        {"match": [{"uri": {"prefix": "/both"}}], "rewrite": who, "route": [to("v1", 50), to("v2", 50)]},
        {
            "match": [{"uri": {"prefix": "/retried"}}],
            "rewrite": who,
            "route": [{"destination": {"host": "web"}}],
            "retries": {"attempts": 3, "perTryTimeout": "2s", "retryOn": "5xx,connect-failure"},
        },
        {
            "match": [{"uri": {"exact": "/answer"}}],
            "directResponse": {"status": 200, "body": {"string": json.dumps(answer)}},
        },
    ]


def istio(namespace: str, kind: str, spec: Object) -> Object:
    meta = {"name": "web", "namespace": namespace}
    return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": meta, "spec": spec}


def seen(shop: Apps, address: str, path: str, times: int) -> set[str]:
    """Which pods answer, of so many calls."""
    return set(json.loads(shop.python("a", MANY, address, path, times)))


def said(shop: Apps, kind: str) -> list[tuple[str, str]]:
    """Types and reasons of the conditions of the object `web`."""
    status = shop.cluster.get(kind, "web", shop.namespace).get("status", {})
    conditions = status.get("conditions") or [
        each for one in status.get("parents", []) for each in one["conditions"]
    ]
    return [(each["type"], each["reason"]) for each in conditions]


def test_policies_and_tokens_hold_at_a_waypoint_and_say_so(attached: Apps) -> None:
    """Of an AuthorizationPolicy with targetRefs method, path and the caller's account count; of a
    RequestAuthentication the keys that stand in it."""
    shop, cluster, name = attached, attached.cluster, attached.namespace
    key = ec.generate_private_key(ec.SECP256R1())
    targets = [{"group": "", "kind": "Service", "name": "web"}]
    rule = {"issuer": "https://issuer.example", "jwks": json.dumps({"keys": [public_key(key)]})}
    mine = [f"cluster.local/ns/{name}/sa/default"]
    allowed = [
        {
            "from": [{"source": {"principals": mine}}],
            "to": [{"operation": {"methods": ["GET"], "paths": ["/who"]}}],
        },
        {"when": [{"key": "request.auth.claims[group]", "values": ["admin"]}]},
    ]
    security = "security.istio.io/v1"
    meta = {"name": "web", "namespace": name}
    cluster.apply(
        {
            "apiVersion": security,
            "kind": "AuthorizationPolicy",
            "metadata": meta,
            "spec": {"targetRefs": targets, "action": "ALLOW", "rules": allowed},
        },
        {
            "apiVersion": security,
            "kind": "RequestAuthentication",
            "metadata": meta,
            "spec": {"targetRefs": targets, "jwtRules": [rule]},
        },
    )
    admin, user, strange = (
        token(key, "admin"), token(key, "user"), token(ec.generate_private_key(ec.SECP256R1()), "admin")
    )  # fmt: skip
    for address in shop.service_addresses("web"):
        wait_until("who is refused", lambda at=address: status(shop, "d", at, "/who") == 403, SECONDS)
        assert status(shop, "a", address, "/who") == 200
        assert status(shop, "a", address, "/admin") == 403
        assert status(shop, "d", address, "/who", admin) == 200
        assert status(shop, "d", address, "/who", user) == 403
        assert status(shop, "a", address, "/who", strange) == 401
    expected = [("WaypointAccepted", "Accepted")]
    for kind in ("authorizationpolicy", "requestauthentication"):
        wait_until(f"the status of the {kind}", lambda kind=kind: said(shop, kind) == expected, SECONDS)
    cluster.call("-n", name, "delete", "authorizationpolicy,requestauthentication", "web")
    address = shop.service_addresses("web")[0]
    wait_until("all are let through", lambda: status(shop, "d", address, "/who") == 200, SECONDS)
    detach(shop)


def public_key(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    """As JWKS has it."""
    numbers = key.public_key().public_numbers()
    x, y = (base64url(each.to_bytes(32, "big")) for each in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "one", "x": x, "y": y}


def token(key: ec.EllipticCurvePrivateKey, group: str) -> str:
    """One that is good for an hour."""
    claims = {"iss": "https://issuer.example", "sub": "s", "group": group, "exp": int(time.time()) + 3600}
    parts = {"alg": "ES256", "kid": "one"}, claims
    signed = ".".join(base64url(json.dumps(each).encode()) for each in parts)
    r, s = utils.decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")


def status(shop: Apps, pod: str, address: str, path: str, bearer: str = "") -> int:
    """That of the answer to a call; 0: there is none."""
    return int(shop.python(pod, STATUS, address, path, bearer))
