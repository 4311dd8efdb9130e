"""Services of every kind, hooks of containers and ways in from outside lead to pods of the mesh as they do to
others, and a rollout under load is not noticed."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.cluster.apps import LOAD, OPT_IN, PORT, Apps, namespace
from tests.cluster.cluster import Cluster, Object, is_ready, wait_until
from tests.cluster.conftest import Mesh
from tests.cluster.test_3_policy import strict
from tests.cluster.wire import observer

pytestmark = pytest.mark.timeout(300)

SECONDS = 15
OTHER_PORT = 9090
EXTERNAL = {4: "198.51.100.91", 6: "2001:db8::91"}
BALANCED = {4: "198.51.100.92", 6: "2001:db8::92"}
"""Documentation addresses (RFC 5737, RFC 3849): what leads there is the service alone."""

RECORDER = """
import json, socket, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
seen = []
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(seen).encode()
        if self.path not in ("/", "/seen"):
            seen.append(self.path)
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
Server(("::", int(sys.argv[1])), Handler).serve_forever()
"""
"""Tells at /seen what else it has been asked for."""
ASK = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=20).read().decode())"


@pytest.fixture(scope="module")
def town(mesh: Mesh, cluster: Cluster) -> Iterator[Apps]:
    """Pods a and n1 on the first node, b and n2 on the last; n2 has its port `http` elsewhere. All STRICT."""
    first, last = cluster.nodes()[0], cluster.nodes()[-1]
    with namespace(cluster, f"ztunnel-test-{os.getpid()}-town", {OPT_IN: "ambient"}) as apps:
        cluster.apply(strict(apps, "STRICT"))
        apps.start(
            apps.server("a", first), apps.server("b", last), recorder(apps, first),
            apps.server("n1", first, {"app": "n"}), elsewhere(apps.server("n2", last, {"app": "n"})),
            apps.service("recorder", "recorder"),
        )  # fmt: skip
        yield apps


def recorder(apps: Apps, node: str) -> Object:
    pod = apps.server("recorder", node)
    pod["spec"]["containers"][0]["command"] = ["python3", "-c", RECORDER, str(PORT)]
    return pod


def elsewhere(pod: Object) -> Object:
    """The same at another port, of the same name."""
    container = pod["spec"]["containers"][0]
    container["command"][-1] = str(OTHER_PORT)
    container["ports"][0]["containerPort"] = OTHER_PORT
    container["readinessProbe"]["httpGet"]["port"] = "http"
    container["livenessProbe"]["tcpSocket"]["port"] = "http"
    return pod


def service(apps: Apps, name: str, app: str, **spec: Any) -> Object:
    made = apps.service(name, app)
    made["spec"] |= spec
    return made


def ours(apps: Apps, addresses: dict[int, str]) -> list[str]:
    """Those of the families that pods here have."""
    return [addresses[each] for each in sorted({6 if ":" in one else 4 for one in apps.addresses("a")})]


def slices(apps: Apps, name: str, pod: str) -> Iterator[Object]:
    """One for each family, written by hand."""
    for address in apps.addresses(pod):
        family = "IPv6" if ":" in address else "IPv4"
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{name}-{family.lower()}",
                "namespace": apps.namespace,
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": family,
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            "ports": [{"name": "http", "port": PORT, "protocol": "TCP"}],
        }


def who(apps: Apps, address: str, times: int = 1) -> set[str]:
    """Which pods answer; `` for none."""
    return {apps.call("a", address, 80).get("pod", "") for _ in range(times)}


def wait_for(apps: Apps, address: str, pods: set[str]) -> None:
    wait_until(f"{address}: {pods}", lambda: who(apps, address) <= pods, SECONDS)


def test_services_of_every_kind_lead_to_their_pods(town: Apps) -> None:
    """Without a selector, with ports by name, at addresses of others, of the caller's node alone."""
    cluster, external, balanced = town.cluster, ours(town, EXTERNAL), ours(town, BALANCED)
    by_hand = service(town, "hand", "b", ports=[{"name": "http", "port": 80, "targetPort": 81}])
    del by_hand["spec"]["selector"]  # then the slices alone say which port
    cluster.apply(
        by_hand, *slices(town, "hand", "b"),
        service(town, "named", "n"),
        service(town, "external", "b", externalIPs=external),
        service(town, "balanced", "b", type="LoadBalancer"),
        service(town, "near", "n", internalTrafficPolicy="Local"),
    )  # fmt: skip
    given = {"status": {"loadBalancer": {"ingress": [{"ip": each} for each in balanced]}}}
    words = ("patch", "service", "balanced", "--subresource=status", "-p", json.dumps(given))
    cluster.call("-n", town.namespace, *words)
    for address in (*town.service_addresses("hand"), *external, *balanced):
        wait_for(town, address, {"b"})
    for address in town.service_addresses("named"):
        wait_for(town, address, {"n1", "n2"})
        wait_until("both answer", lambda at=address: who(town, at, 8) == {"n1", "n2"}, SECONDS)
    for address in town.service_addresses("near"):
        wait_for(town, address, {"n1"})
        assert who(town, address, 6) == {"n1"}


def test_a_service_that_changes_leads_where_it_says_now(town: Apps, nodes: tuple[str, str]) -> None:
    """Pods that are not ready are published from now on, and no more; the name comes again with another
    address."""
    cluster = town.cluster
    young = town.server("young", nodes[1])
    young["spec"]["containers"][0]["readinessProbe"]["httpGet"]["port"] = 1
    cluster.apply(young, service(town, "early", "young"))
    wait_until("it runs", lambda: town.pod("young")["status"].get("phase") == "Running", 60)
    addresses = town.service_addresses("early")
    for published in (True, False, True):
        cluster.apply(service(town, "early", "young", publishNotReadyAddresses=published))
        for address in addresses:
            wait_for(town, address, {"young" if published else ""})
    assert not is_ready(town.pod("young"))
    cluster.call("-n", town.namespace, "delete", "service", "early")
    cluster.apply(service(town, "holder", "b", clusterIPs=addresses, clusterIP=addresses[0]))
    cluster.apply(service(town, "early", "n"))
    for address in addresses:
        wait_for(town, address, {"b"})
    for address in town.service_addresses("early"):
        wait_for(town, address, {"n1", "n2"})


def recorded(town: Apps) -> list[str]:
    address = town.addresses("recorder")[0]
    host = f"[{address}]" if ":" in address else address
    found: list[str] = json.loads(town.python("a", ASK, f"http://{host}:{PORT}/seen"))
    return found


@contextmanager
def forwarded(apps: Apps, pod: str) -> Iterator[str]:
    """kubectl port-forward; where it listens."""
    process = apps.cluster.popen("-n", apps.namespace, "port-forward", f"pod/{pod}", f":{PORT}")
    try:
        assert process.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found, process.communicate(timeout=5)
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        process.kill()
        process.communicate(timeout=5)


def test_a_port_is_forwarded_into_a_strict_pod(town: Apps) -> None:
    """It is whoever may have that right who calls, from the pod's own loopback."""
    with forwarded(town, "b") as url, urllib.request.urlopen(f"{url}/who", timeout=10) as answer:
        assert json.loads(answer.read())["pod"] == "b"


def test_who_comes_by_a_port_of_the_node_is_seen_as_who_it_is_and_refused_where_all_is_strict(
    mesh: Mesh, cluster: Cluster, apps: Apps, nodes: tuple[str, str]
) -> None:
    """A hostPort, and a NodePort with `externalTrafficPolicy: Local`, called by another node and a pod."""
    if nodes[0] == nodes[1]:
        pytest.fail("the cluster has one node: nobody is outside")
    apps.label("ambient")
    host_port = 20000 + os.getpid() % 10000
    pod = apps.server("b", nodes[0])
    pod["spec"]["containers"][0]["ports"][0]["hostPort"] = host_port
    local = service(apps, "local", "b", type="NodePort", externalTrafficPolicy="Local")
    apps.start(pod, apps.server("c", nodes[1]), local)
    outside = observer(cluster, apps, nodes[1])
    [port] = cluster.get("service", "local", apps.namespace)["spec"]["ports"]
    addresses, callers = node_addresses(cluster, nodes[0]), node_addresses(cluster, nodes[1])
    ways = [(address, each) for address in addresses for each in (host_port, port["nodePort"])]
    for address, each in ways:
        wait_until(
            f"{address} {each} answers", lambda at=address, to=each: caller(apps, outside, at, to), SECONDS
        )
        assert caller(apps, outside, address, each) in callers
        assert caller(apps, "c", address, each)
    cluster.apply(strict(apps, "STRICT"))
    for address, each in ways:
        wait_until(
            f"{address} {each} is refused",
            lambda at=address, to=each: not caller(apps, outside, at, to),
            SECONDS,
        )
    [status] = apps.pod("b")["status"]["containerStatuses"]
    assert (status["restartCount"], status["ready"]) == (0, True)


def node_addresses(cluster: Cluster, name: str) -> list[str]:
    found = cluster.get("node", name)["status"]["addresses"]
    return [each["address"] for each in found if each["type"] == "InternalIP"]


def caller(apps: Apps, pod: str, address: str, port: int) -> str:
    """Whom the server saw calling; empty: it did not answer."""
    seen = str(apps.call(pod, address, port).get("caller", ""))
    return seen.rpartition(":")[0].strip("[]")


def test_a_rollout_under_load_is_not_noticed_and_hooks_call_as_their_pods(town: Apps) -> None:
    """Pods that wait in their preStop go on serving until every node knows that they end. Before anything is
    ready, and while they are being deleted, they can call: by name, and STRICT."""
    cluster, pod = town.cluster, town.server("web", "")
    spec = pod["spec"]
    del spec["nodeName"]
    spec["terminationGracePeriodSeconds"] = 8
    url = f"http://recorder.{town.namespace}.svc.cluster.local"
    spec["containers"][0]["lifecycle"] = {
        name: {"exec": {"command": ["python3", "-c", f"{ASK}\n{more}", f"{url}/{name}"]}}
        for name, more in (("postStart", ""), ("preStop", "import time; time.sleep(3)"))
    }
    template = {"metadata": {"labels": pod["metadata"]["labels"]}, "spec": spec}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": town.namespace},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": template,
        },
    }
    cluster.apply(deployment, town.service("web", "web"))
    words = ("-n", town.namespace, "rollout")
    cluster.call(*words, "status", "deployment/web", "--timeout=60s", timeout=70)
    addresses = town.service_addresses("web")
    for address in addresses:
        wait_until("it answers", lambda at=address: who(town, at) != {""}, SECONDS)
    with ExitStack() as stack:
        loads = {at: stack.enter_context(town.running("a", LOAD, at, 80, 0.02)) for at in addresses}
        cluster.call(*words, "restart", "deployment/web")
        cluster.call(*words, "status", "deployment/web", "--timeout=90s", timeout=100)
        wait_until("the old ones are gone", lambda: len(cluster.pods(town.namespace, "app=web")) == 2, 60)
        said = {at: load.end() for at, load in loads.items()}
    print({at: (each["seen"], each["failed"], each["slowest"]) for at, each in said.items()})
    assert {at: each["errors"] for at, each in said.items() if each["failed"]} == {}
    called = recorded(town)
    assert called.count("/postStart") >= 4
    assert called.count("/preStop") >= 2
