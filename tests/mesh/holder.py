"""The holder of a node of a laboratory, and the API server that it asks."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.mesh.lab import Mesh, wait_until
from ztunnel.demo.command import PROGRAM
from ztunnel.run.handover import holder_of

NAMESPACE = "/api/v1/namespaces/ztunnel-system"
NODES = "/api/v1/nodes/"
DAEMON_SET = "/apis/apps/v1/namespaces/ztunnel-system/daemonsets/ztunnel"


class ApiServer(http.server.ThreadingHTTPServer):
    """Knows one DaemonSet, as long as it is `there`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.there = True


class _Answer(http.server.BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        assert path in (DAEMON_SET, NAMESPACE) or path.startswith(NODES)
        code = 200 if self.server.there else 404
        value = {"metadata": {"name": "ztunnel", "namespace": "ztunnel-system"}}
        body = json.dumps(value if self.server.there else {"kind": "Status", "code": 404}).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""


@contextmanager
def api_server() -> Iterator[ApiServer]:
    with ApiServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Holder:
    process: subprocess.Popen[bytes]
    log: Path

    def said(self, text: str) -> bool:
        return text in self.log.read_text()


@contextmanager
def holding(mesh: Mesh, node: str, folder: Path, server: ApiServer, **variables: str) -> Iterator[Holder]:
    """It runs beside the proxy of that node."""
    kubeconfig = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "current-context": "c",
    }
    (folder / ".kube").mkdir(exist_ok=True)
    (folder / ".kube" / "config").write_text(yaml.safe_dump(kubeconfig))
    names = mesh.laboratory.names
    program = os.environ.get(PROGRAM)
    words = [*([program] if program else [sys.executable, "-m", "ztunnel"]), "hold", "--node", node]
    words += ["--pins", str(names.pins(node)), "--run-dir", str(names.node_directory(node))]
    words += ["--daemon-set", "ztunnel-system/ztunnel"]
    log = folder / "holder.log"
    environment = {**os.environ, "HOME": str(folder), **variables}
    with log.open("wb") as output:
        process = subprocess.Popen(words, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        place = holder_of(names.node_directory(node), names.pins(node))
        wait_until(lambda: place.exists() or process.poll() is not None, "the holder runs", 20)
        assert process.poll() is None, log.read_text()
        yield Holder(process, log)
    finally:
        process.kill()
        process.wait()
        place.unlink(missing_ok=True)
