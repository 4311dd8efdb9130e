"""A waypoint `wp` in a namespace with service `web`: what is applied about them, and how they are."""

from __future__ import annotations

import json
from typing import Any

from tests.cluster.apps import Apps
from tests.cluster.cluster import Object, is_ready, wait_until
from tests.cluster.conftest import SYSTEM

SECONDS = 20
PODS = "gateway.networking.k8s.io/gateway-name=wp"
CONFIG = {"name": "ztunnel-mesh", "namespace": SYSTEM}

TOOLS = """
import json, socket, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
seen = []
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        spans = json.loads(self.rfile.read(int(self.headers["content-length"])))
        seen.extend(each["tags"]["http.url"] for each in spans)
        self.answer(202)
    def do_GET(self):
        if self.path == "/seen":
            return self.answer(200, json.dumps(seen).encode())
        asked = self.path.startswith("/check/")
        return self.answer(403 if asked and self.headers.get("x-key") != "right" else 200)
    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
Server(("::", int(sys.argv[1])), Handler).serve_forever()
"""
"""Whom a waypoint asks, below /check, and where it sends spans, whose URLs it tells."""

CALLS = """
import http.client, json, sys
host, path, headers, times = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])
seen = []
for _ in range(times):
    connection = http.client.HTTPConnection(host, 80, timeout=5)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        seen.append([answer.status, answer.getheader("x-ratelimit-remaining", "")])
    except OSError as error:
        seen.append([0, str(error)])
    connection.close()
print(json.dumps(seen))
"""


def gateway(apps: Apps, config_map: str = "", **annotations: str) -> Object:
    """One of our class; `config_map`: its parameters."""
    reference = {"group": "", "kind": "ConfigMap", "name": config_map}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "wp", "namespace": apps.namespace, "annotations": annotations},
        "spec": {
            "gatewayClassName": "ztunnel-waypoint",
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
            "infrastructure": {"parametersRef": reference} if config_map else {},
        },
    }


def parameters(apps: Apps, data: dict[str, str]) -> Object:
    meta = {"name": "wp-parameters", "namespace": apps.namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def mesh_config(apps: Apps, **asked: Any) -> Object:
    """Providers, of which `asked` is the authorizer but for its service."""
    service = {"service": f"tools.{apps.namespace}.svc.cluster.local", "port": 80}
    authorizer = {
        **service, "pathPrefix": "/check", "includeRequestHeadersInCheck": ["x-key"], "timeout": "5s", **asked
    }  # fmt: skip
    lines = {"path": "/dev/stdout", "logFormat": {"text": "seen %REQ(:PATH)% %RESPONSE_CODE%\n"}}
    providers = [
        {"name": "asked", "envoyExtAuthzHttp": authorizer},
        {"name": "lines", "envoyFileAccessLog": lines},
        {"name": "spans", "zipkin": service},
    ]
    text = json.dumps({"extensionProviders": providers})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": CONFIG, "data": {"mesh": text}}


def about_web(apps: Apps, version: str, kind: str, **spec: Any) -> Object:
    targets = [{"group": "", "kind": "Service", "name": "web"}]
    meta = {"name": "web", "namespace": apps.namespace}
    return {"apiVersion": version, "kind": kind, "metadata": meta, "spec": {"targetRefs": targets, **spec}}


def calls(apps: Apps, address: str, path: str, times: int, **headers: str) -> list[tuple[int, str]]:
    """Status of each answer, 0 for none, and what is said to remain."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    found = apps.python("a", CALLS, address, path, json.dumps(named), times)
    return [(status, text) for status, text in json.loads(found)]


def statuses(apps: Apps, address: str, path: str = "/who", times: int = 1, **headers: str) -> list[int]:
    return [status for status, _ in calls(apps, address, path, times, **headers)]


def condition(apps: Apps, kind: str, name: str, what: str) -> tuple[str, str, str]:
    """Status, reason and message; empty where there is none."""
    found = apps.cluster.get(kind, name, apps.namespace).get("status", {}).get("conditions", [])
    said = [(each["status"], each["reason"], each["message"]) for each in found if each["type"] == what]
    return said[0] if said else ("", "", "")


def is_said(apps: Apps, kind: str, status: str, reason: str, text: str = "") -> None:
    """Wait until the condition of `web` is that."""

    def look() -> bool:
        found = condition(apps, kind, "web", "WaypointAccepted")
        return found[:2] == (status, reason) and text in found[2]

    wait_until(f"{kind}: {status} {reason} {text}", look, SECONDS)


def waypoints(apps: Apps) -> list[Object]:
    """Pods that serve and are not ending."""
    found = apps.cluster.pods(apps.namespace, PODS)
    return [each for each in found if is_ready(each) and "deletionTimestamp" not in each["metadata"]]


def pages(apps: Apps) -> str:
    """The metrics of all its pods."""
    names = [each["metadata"]["name"] for each in waypoints(apps)]
    return "\n".join(apps.cluster.scrape(name, 15020, namespace=apps.namespace) for name in names)
