"""A real Prometheus, of Debian's package, that finds and scrapes a cluster's pods as it would in the cluster.

It runs beside the tests and reaches pods through the API server, with the rights of KUBECONFIG. Debian builds
it without Kubernetes' service discovery: a file has what that would find, under its labels, and the job that
chooses among it is the usual `kubernetes-pods`.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.cluster import ROOT, Cluster, Object, wait_until
from tests.deploy.promql import ALERTS

_PLACE = ROOT / ".build" / "prometheus"

_CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: kubernetes-pods
    scheme: https
    tls_config: {{ca_file: {ca}, cert_file: {cert}, key_file: {key}}}
    file_sd_configs: [{{files: [{pods}]}}]
    relabel_configs:
      - source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape]
        regex: "true"
        action: keep
      # One target for each pod: its port is that of the annotation.
      - source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_port]
        target_label: __meta_kubernetes_pod_container_port_number
        action: keepequal
      - source_labels: [__meta_kubernetes_namespace, __meta_kubernetes_pod_name,
                        __meta_kubernetes_pod_annotation_prometheus_io_port,
                        __meta_kubernetes_pod_annotation_prometheus_io_path]
        regex: (.+);(.+);(.+);(.+)
        replacement: /api/v1/namespaces/$1/pods/$2:$3/proxy$4
        target_label: __metrics_path__
      - target_label: __address__
        replacement: {server}
      - source_labels: [__meta_kubernetes_pod_name]
        target_label: instance
"""


def program(name: str) -> Path:
    """`prometheus` or `promtool`, unpacked from Debian's package: installed, it would start a service."""
    if found := shutil.which(name):
        return Path(found)
    if not (_PLACE / "usr/bin" / name).exists():
        shutil.rmtree(_PLACE, ignore_errors=True)
        _PLACE.mkdir(parents=True)
        subprocess.run(["apt-get", "update", "-qq"], check=True, capture_output=True)
        subprocess.run(
            ["apt-get", "download", "-q", "prometheus"], check=True, capture_output=True, cwd=_PLACE
        )
        [package] = _PLACE.glob("*.deb")
        subprocess.run(["dpkg", "-x", package, _PLACE], check=True)
    return _PLACE / "usr/bin" / name


def discovered(pods: list[Object]) -> list[Object]:
    """What `kubernetes_sd_configs` of role pod finds: a target for each port of each container, with its
    labels (prometheus discovery/kubernetes/pod.go)."""
    found = []
    for pod in pods:
        meta, address = pod["metadata"], pod["status"].get("podIP", "")
        labels = {
            "__meta_kubernetes_namespace": meta["namespace"],
            "__meta_kubernetes_pod_name": meta["name"],
            "__meta_kubernetes_pod_node_name": pod["spec"].get("nodeName", ""),
        }
        for name, value in meta.get("annotations", {}).items():
            labels[f"__meta_kubernetes_pod_annotation_{re.sub('[^a-zA-Z0-9_]', '_', name)}"] = value
        for container in pod["spec"]["containers"]:
            for port in container.get("ports", []):
                number = str(port["containerPort"])
                own = {**labels, "__meta_kubernetes_pod_container_port_number": number}
                found.append({"targets": [f"{address}:{number}"], "labels": own})
    return found


@dataclass
class Prometheus:
    """One that runs."""

    port: int

    def ask(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}", timeout=10
        ) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The samples of an instant query, without those that are not a number."""
        found = self.ask("query", query=expression)["result"]
        samples = [(each["metric"], float(each["value"][1])) for each in found]
        return [(labels, value) for labels, value in samples if value == value]

    def targets(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("targets", state="active")["activeTargets"]
        return found


@contextmanager
def running(cluster: Cluster, folder: Path) -> Iterator[Prometheus]:
    """In `folder`, until the end of the block."""
    config = yaml.safe_load(cluster.config.read_text())
    server = urllib.parse.urlsplit(config["clusters"][0]["cluster"]["server"]).netloc
    files = {}
    for name, value in (
        ("ca", config["clusters"][0]["cluster"]["certificate-authority-data"]),
        ("cert", config["users"][0]["user"]["client-certificate-data"]),
        ("key", config["users"][0]["user"]["client-key-data"]),
    ):
        files[name] = folder / f"{name}.pem"
        files[name].write_bytes(base64.b64decode(value))
    pods = folder / "pods.json"
    pods.write_text(json.dumps(discovered(cluster.pods("ztunnel-system"))))
    text = _CONFIG.format(rules=ALERTS, pods=pods, server=server, **files)
    (folder / "prometheus.yml").write_text(text)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(words, stdout=log, stderr=log) as process:
        try:
            made = Prometheus(port)
            wait_until("Prometheus is ready", lambda: _answers(made, process, folder / "log"), 30)
            yield made
        finally:
            process.terminate()
            process.wait(30)


def _answers(prometheus: Prometheus, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()[-2000:]
    try:
        return bool(prometheus.targets())
    except OSError:
        time.sleep(0.2)
        return False
