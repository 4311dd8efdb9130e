"""What servers in pods see of each field of a DestinationRule: which of them is asked, over which
connections, and when one is left out."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any

from tests.documented.cases import SIGMAS
from tests.mesh.answering import Answered, Http1, Http2, Reply, addresses
from tests.mesh.lab import TCP_FAMILIES, Mesh, wait_until
from tests.mesh.test_waypoint import Waypoint

NODES = "".join(
    f"apiVersion: v1\nkind: Node\nmetadata: {{name: node-{number}, labels: {{"
    f"topology.kubernetes.io/region: r{number}, topology.kubernetes.io/zone: z{number}}}}}\n---\n"
    for number in (1, 2)
)
KNOWN_LATER = ("unsupported", "local", "deaf", "mute")
"""Those that do not answer every request."""

HOMES = {"v1": "node-1", "v2": "node-2", "v3": "node-2"}

WARM_SECONDS = 3

OUTLIERS = "outlierDetection: {interval: 10ms, baseEjectionTime: 60s, maxEjectionPercent: 100, %s}"
ANYWHERE = "loadBalancer: {localityLbSetting: {enabled: false}}, "
HASH = "loadBalancer: {consistentHash: {%s}}"
POLICIES = {
    "turns": "loadBalancer: {simple: ROUND_ROBIN}",
    "random": "loadBalancer: {simple: RANDOM}",
    "least": "loadBalancer: {simple: LEAST_REQUEST}",
    "through": "loadBalancer: {simple: PASSTHROUGH}",
    "ring": HASH % "httpHeaderName: x-user, ringHash: {minimumRingSize: 64}",
    "maglev": HASH % "httpHeaderName: x-user, maglev: {tableSize: 1009}",
    "cookie": HASH % "httpCookie: {name: place, path: /shop, ttl: 60s, "
    "attributes: [{name: SameSite, value: Strict}]}",
    "query": HASH % "httpQueryParameterName: key",
    "source": HASH % "useSourceIp: true",
    "ports": f"portLevelSettings: [{{port: {{number: 90}}, {HASH % 'useSourceIp: true'}}}], "
    "loadBalancer: {simple: ROUND_ROBIN}",
    "spread": "loadBalancer: {localityLbSetting: {distribute: [{from: '*', to: {'r1/*': 70, 'r2/*': 30}}]}}",
    "near": OUTLIERS % "consecutive5xxErrors: 1",
    "anywhere": "loadBalancer: {localityLbSetting: {enabled: false}}, "
    + OUTLIERS % "consecutive5xxErrors: 1",
    "labelled": "loadBalancer: {localityLbSetting: {failoverPriority: ['version=v3']}}, "
    + OUTLIERS % "consecutive5xxErrors: 1",
    "away": "loadBalancer: {localityLbSetting: {failover: [{from: r1, to: r2}, {from: r2, to: r1}]}}, "
    + OUTLIERS % "consecutive5xxErrors: 1",
    "once": "connectionPool: {http: {maxRequestsPerConnection: 1}}",
    "upgraded": "connectionPool: {http: {h2UpgradePolicy: UPGRADE}}",
    "kept": "connectionPool: {http: {h2UpgradePolicy: DO_NOT_UPGRADE}}",
    "clients": "connectionPool: {http: {useClientProtocol: true}}",
    "idle": "connectionPool: {http: {idleTimeout: 200ms}}",
    "old": "connectionPool: {tcp: {maxConnectionDuration: 200ms}}",
    "few": "connectionPool: {http: {http2MaxRequests: 1}}",
    "streams": "connectionPool: {http: {maxConcurrentStreams: 1, h2UpgradePolicy: UPGRADE}}",
    "retries": "connectionPool: {http: {maxRetries: 1}}",
    "gateway": "loadBalancer: {localityLbSetting: {enabled: false}}, "
    + OUTLIERS % "consecutiveGatewayErrors: 1, consecutive5xxErrors: 0",
    "local": "loadBalancer: {localityLbSetting: {enabled: false}}, "
    + OUTLIERS % "splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 1",
    "deaf": "connectionPool: {tcp: {connectTimeout: 200ms}}",
    "unsupported": "proxyProtocol: {version: V1}",
    "hidden": "loadBalancer: {simple: ROUND_ROBIN}, connectionPool: {http: {maxRequestsPerConnection: 1}}",
    "again": HASH % "httpHeaderName: x-user",
    "codes": ANYWHERE + OUTLIERS % "consecutive5xxErrors: 1, outlierDetectionHttpErrorCodes: [429]",
    "panic": ANYWHERE + OUTLIERS % "consecutive5xxErrors: 1, minHealthPercent: 50",
    "budget": "retryBudget: {percent: 50, minRetryConcurrency: 1}",
    "interval": "retryBudget: {percent: 50, minRetryConcurrency: 1, budgetInterval: 60s}",
    "remote": OUTLIERS % "consecutive5xxErrors: 0",
    "nearby": OUTLIERS % "consecutive5xxErrors: 0",
    "pings": "connectionPool: {http: {h2UpgradePolicy: UPGRADE, "
    "http2KeepAlive: {interval: 50ms, timeout: 5s}}}",
    "mute": "connectionPool: {http: {h2UpgradePolicy: UPGRADE, "
    "http2KeepAlive: {interval: 100ms, timeout: 300ms}}}",
    "warm": f"loadBalancer: {{simple: ROUND_ROBIN, warmup: {{duration: {WARM_SECONDS}s}}}}",
    "zones": "loadBalancer: {simple: ROUND_ROBIN, zoneAwareLbSetting: {enabled: true}}",
}


def manifests(name: str, policy: str) -> str:
    """A service, and the rule for it."""
    port = {"local": 8085, "mute": 8086}.get(name, 8081)
    selectors = {"deaf": "app: deaf", "mute": "version: v1", "warm": "warm: up"}
    selector = selectors.get(name, "role: server")
    export = ", exportTo: [istio-system]" if name == "hidden" else ""
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop, "
        "labels: {istio.io/use-waypoint: wp}}\n"
        f"spec: {{selector: {{{selector}}}, ports: [{{name: http, port: 80, targetPort: {port}}}, "
        f"{{name: http-other, port: 90, targetPort: {port}}}, "
        f"{{name: by-kind, port: 91, targetPort: {port}, appProtocol: kubernetes.io/h2c}}]}}\n---\n"
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n"
        f"metadata: {{name: {name}, namespace: shop}}\n"
        f"spec: {{host: {name}, trafficPolicy: {{{policy}}}{export}}}\n---\n"
    )


ROUTES = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: again, namespace: shop}
spec:
  hosts: [again]
  http: [{retries: {attempts: 1, retryOn: 5xx}, route: [{destination: {host: again, port: {number: 80}}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: nearby, namespace: shop}
spec:
  hosts: [nearby]
  http: [{retries: {attempts: 2, retryOn: 5xx}, route: [{destination: {host: nearby, port: {number: 80}}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: remote, namespace: shop}
spec:
  hosts: [remote]
  http:
  - retries: {attempts: 2, retryOn: 5xx, retryRemoteLocalities: true}
    route: [{destination: {host: remote, port: {number: 80}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: local, namespace: shop}
spec:
  hosts: [local]
  http: [{retries: {attempts: 0}, route: [{destination: {host: local, port: {number: 80}}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: parts, namespace: shop}
spec:
  host: parts
  trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}
  subsets:
  - {name: second, labels: {version: v2}}
  - name: third
    labels: {version: v3}
    trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: parts, namespace: shop}
spec:
  hosts: [parts]
  http:
  - match: [{uri: {prefix: /third}}]
    route: [{destination: {host: parts, subset: third, port: {number: 80}}}]
  - route: [{destination: {host: parts, subset: second, port: {number: 80}}}]
---
"""
RETRIED_ONCE = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: NAME, namespace: shop}
spec:
  hosts: [NAME]
  http: [{retries: {attempts: 1, retryOn: 5xx}, route: [{destination: {host: NAME, port: {number: 80}}}]}]
---
"""
RULES = (
    "".join(manifests(name, policy) for name, policy in POLICIES.items())
    + manifests("parts", "").partition("apiVersion: networking")[0]
    + ROUTES
    + "".join(RETRIED_ONCE.replace("NAME", name) for name in ("retries", "budget", "interval"))
)
"""Services with a rule for each field. Their servers are the pods with `role: server`."""


class Shop:
    """A client, and the servers in the pods."""

    def __init__(self, mesh: Mesh, answered: Answered) -> None:
        self.mesh, self.answered = mesh, answered
        self.waypoint = Waypoint(mesh)
        self._numbers = count(1)
        self._addresses = {family: addresses(mesh, family) for family in TCP_FAMILIES}
        self._families = dict(zip([*POLICIES, "parts"], TCP_FAMILIES * len(POLICIES), strict=False))

    def client(self, name: str, port: int = 80, kind: type[Http1] | type[Http2] = Http1) -> Http1 | Http2:
        """A connection of its own, of the one family or the other."""
        return kind(self.mesh, self._addresses[self._families[name]][name], port)

    def ask(
        self, client: Http1 | Http2, path: str = "/", *, fails: tuple[int, ...] = (), **fields: str
    ) -> Reply:
        """One request, of which tries fail like that."""
        key = f"00000000-0000-4000-8000-{next(self._numbers):012d}"
        self.answered.fails[key] = fails
        more = {name.replace("_", "-"): value for name, value in fields.items()}
        return client.ask("GET", path, "a", {"x-request-id": key, **more})

    def versions(self, name: str, many: int, port: int = 80, path: str = "/", **fields: str) -> list[str]:
        """Whom so many requests go to."""
        client = self.client(name, port)
        return [told(self.ask(client, path, **fields))["version"] for _ in range(many)]

    @property
    def near(self) -> set[str]:
        """Those on the waypoint's node."""
        return {version for version, node in HOMES.items() if node == self.waypoint.pod.node.name}


def told(reply: Reply) -> dict[str, Any]:
    assert reply.told is not None, (reply.fields, reply.body)
    return reply.told


ALL = {"v1", "v2", "v3"}


def turns(shop: Shop) -> None:
    assert Counter(shop.versions("turns", 9)) == dict.fromkeys(ALL, 3)


def chance(shop: Shop) -> None:
    found = Counter(shop.versions("random", 60))
    assert set(found) == ALL
    assert found != dict.fromkeys(ALL, 20) or Counter(shop.versions("random", 60)) != found
    assert set(shop.versions("through", 20)) <= ALL


def the_less_busy(shop: Shop) -> None:
    """One has a request under way: it is chosen only where chance names it twice."""
    shop.answered.hold("busy")
    asking = at_once(shop, "least", "busy")
    found = Counter(shop.versions("least", 60))
    assert min(found[version] for version in ALL) < 60 / 9 + SIGMAS * (60 * 8 / 81) ** 0.5
    shop.answered.let_go("busy")
    asking.join()


def by_key(shop: Shop) -> None:
    """What the key is, and that it is the same for ever."""
    for name in ("ring", "maglev"):
        places = {user: set(shop.versions(name, 3, x_user=user)) for user in map(str, range(12))}
        assert all(len(each) == 1 for each in places.values()), (name, places)
        assert len(set().union(*places.values())) > 1, (name, places)
    places = {key: set(shop.versions("query", 3, path=f"/?key={key}")) for key in "abcdefghijkl"}
    assert all(len(each) == 1 for each in places.values()), places
    assert len(set().union(*places.values())) > 1, places
    assert len(set(shop.versions("source", 9))) == 1


def by_cookie(shop: Shop) -> None:
    """A client without one is given one, and it leads to where it was given."""
    client, places = shop.client("cookie"), set()
    for _ in range(8):
        first = shop.ask(client)
        cookie, *attributes = first.fields["set-cookie"].split("; ")
        assert {"Max-Age=60", "Path=/shop", "HttpOnly", "SameSite=Strict"} <= set(attributes), attributes
        for _ in range(3):
            again = shop.ask(client, cookie=cookie)
            assert told(again)["version"] == told(first)["version"]
            assert "set-cookie" not in again.fields
        places.add(told(first)["version"])
    assert len(places) > 1


def of_a_port_and_of_a_subset(shop: Shop) -> None:
    assert Counter(shop.versions("ports", 9)) == dict.fromkeys(ALL, 3)
    assert len(set(shop.versions("ports", 9, port=90))) == 1
    second, third = (
        [told(shop.ask(client, path)) for _ in range(3)]
        for client, path in ((shop.client("parts"), "/"), (shop.client("parts"), "/third"))
    )
    assert [(one["version"], one["http"]) for one in second] == [("v2", 2)] * 3
    assert len({one["connection"] for one in second}) == 1
    assert [one["version"] for one in third] == ["v3"] * 3
    assert len({one["connection"] for one in third}) == 3  # in place of what the whole says of its pool


def by_place(shop: Shop) -> None:
    found = Counter(HOMES[version] for version in shop.versions("spread", 120))
    assert abs(found["node-1"] - 84) < SIGMAS * (120 * 0.7 * 0.3) ** 0.5, found
    assert set(shop.versions("near", 20)) == shop.near
    assert set(shop.versions("anywhere", 60)) == ALL
    assert set(shop.versions("labelled", 10)) == {"v3"}
    assert set(shop.versions("away", 20)) == shop.near
    client = shop.client("away")
    for _ in shop.near:  # each fails once, and is left out
        assert shop.ask(client, fails=(500,)).status == 500
    wait_until(lambda: told(shop.ask(client))["version"] not in shop.near, "the other region is asked")
    assert not set(shop.versions("away", 20)) & shop.near


def over_connections(shop: Shop) -> None:
    def ids(name: str, wait: float = 0.0) -> list[tuple[str, int]]:
        client, found = shop.client(name), []
        for _ in range(4):
            one = told(shop.ask(client))
            found.append((one["version"], one["connection"]))
            time.sleep(wait)  # longer than a connection may be idle, or old
        return found

    for name in ("once", "idle", "old"):
        found = ids(name, 0.0 if name == "once" else 0.3)
        assert len(set(found)) == 4, (name, found)
    assert len(set(ids("kept") + ids("kept"))) <= 3  # one with each server
    versions = [
        told(shop.ask(shop.client(name, 80, kind), te="trailers"))["http"]
        for name in ("upgraded", "kept", "clients")
        for kind in (Http1, Http2)
    ]
    assert versions == [2, 2, 1, 1, 1, 2]
    assert told(shop.ask(shop.client("kept", 91)))["http"] == 2  # as its appProtocol says
    assert len(set(ids("hidden"))) < 4 or len(set(ids("hidden") + ids("hidden"))) < 8  # not exported to it


def at_once(shop: Shop, name: str, key: str) -> threading.Thread:
    """A request that stays under way until it is let go."""
    busy = shop.client(name)
    asking = threading.Thread(target=lambda: busy.ask("GET", "/", "a", {"x-request-id": key}))
    asking.start()
    wait_until(lambda: shop.answered.tries[key], f"{key} is under way")
    return asking


def no_more_streams_or_retries_than(shop: Shop) -> None:
    keys = [f"stream {number}" for number in range(4)]
    for key in keys:
        shop.answered.hold(key)
    asking = [at_once(shop, "streams", key) for key in keys]
    seen = {shop.answered.over[key] for key in keys}
    assert len(seen) == 4, seen  # each on a connection of its own
    for key, each in zip(keys, asking, strict=True):
        shop.answered.let_go(key)
        each.join()
    for name, status in (("retries", 503), ("budget", 503), ("interval", 200)):
        shop.answered.fails[name] = (503,)
        shop.answered.hold(name, after=1)
        busy = at_once(shop, name, name)
        wait_until(lambda name=name: shop.answered.tries[name] == 2, "it is tried again")
        second = shop.ask(shop.client(name), fails=(503,))
        assert second.status == status, name
        shop.answered.let_go(name)
        busy.join()
        assert shop.ask(shop.client(name), fails=(503,)).status == 200


def no_longer_than(shop: Shop) -> None:
    """Nobody answers a pod's connections: by default they are waited for ten seconds."""
    with shop.mesh.filtered("shop/deaf", "type filter hook input priority 0; meta l4proto tcp drop;"):
        began = time.monotonic()
        refused = shop.ask(shop.client("deaf"))
        assert refused.status == 503
        assert 0.2 <= time.monotonic() - began < 5
    assert b"connection" in refused.body


def no_more_than(shop: Shop) -> None:
    shop.answered.hold("few")
    asking = at_once(shop, "few", "few")
    refused = shop.ask(shop.client("few"))
    assert (refused.status, refused.fields["x-envoy-overloaded"]) == (503, "true")
    shop.answered.let_go("few")
    asking.join()
    assert shop.ask(shop.client("few")).status == 200
    assert shop.ask(shop.client("unsupported")).status == 503


def without_those_that_fail(shop: Shop) -> None:
    client = shop.client("gateway")
    for _ in range(9):  # these are no errors of a gateway
        assert shop.ask(client, fails=(500,)).status == 500
    assert set(shop.versions("gateway", 40)) == ALL
    failed = shop.ask(client, fails=(502,))
    assert failed.status == 502
    assert set(shop.versions("gateway", 40)) == ALL - {told(failed)["version"]}
    client = shop.client("codes")
    for _ in range(4):
        assert shop.ask(client, fails=(500,)).status == 500
    assert set(shop.versions("codes", 40)) == ALL
    failed = shop.ask(client, fails=(429,))
    assert failed.status == 429
    assert set(shop.versions("codes", 40)) == ALL - {told(failed)["version"]}
    client, left = shop.client("panic"), ALL
    for _ in range(2):
        left = left - {told(shop.ask(client, fails=(500,)))["version"]}
        used = left if len(left) == 2 else ALL  # one of three would be too few
        assert set(shop.versions("panic", 40)) == used
    client = shop.client("local")  # two of three have nobody at that port
    statuses = [shop.ask(client).status for _ in range(30)]
    assert statuses.count(503) == 2, statuses
    first = told(shop.ask(shop.client("again"), x_user="a"))["version"]
    retried = shop.ask(shop.client("again"), x_user="a", fails=(503,))
    assert retried.status == 200
    assert told(retried)["version"] != first  # envoyproxy/envoy#27317


def elsewhere(shop: Shop) -> None:
    """After two tries in vain near by."""
    for name in ("remote", "nearby"):
        retried = shop.ask(shop.client(name), fails=(503, 503))
        assert retried.status == 200
        assert (told(retried)["version"] in shop.near) == (name == "nearby"), name
    call = shop.client("turns", 90, Http2)  # there is no rule for it
    again = shop.ask(call, "/a.B/C", fails=(14,), content_type="application/grpc", te="trailers")
    assert again.fields["grpc-status"] == "0"
    assert Counter(shop.versions("zones", 9)) == dict.fromkeys(ALL, 3)  # as it has no effect


def with_pings(shop: Shop) -> None:
    first = told(shop.ask(shop.client("pings")))
    wait_until(lambda: shop.answered.pings[first["version"]] >= 3, "it is asked whether it is there")
    began = time.monotonic()
    lost = shop.ask(shop.client("mute"))
    assert lost.status == 503
    assert b"reset reason: connection termination" in lost.body
    assert 0.4 <= time.monotonic() - began < 5
    why = "the server did not answer a ping in time (http2KeepAlive)"
    wait_until(lambda: any(line[3] == "UC" and why in line for line in shop.waypoint.lines()), "it is logged")


CHECKS: list[Callable[[Shop], None]] = [
    turns, chance, the_less_busy, by_key, by_cookie, of_a_port_and_of_a_subset, by_place, over_connections,
    elsewhere, with_pings, no_longer_than, no_more_than, no_more_streams_or_retries_than,
    without_those_that_fail,
]  # fmt: skip


def knows(shop: Shop, name: str) -> bool:
    """Whether the waypoint serves it, and who calls it knows that."""
    try:
        return told(shop.ask(shop.client(name)))["version"] in ALL
    except (AssertionError, OSError):
        return False
