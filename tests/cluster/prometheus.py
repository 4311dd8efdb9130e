"""A real Prometheus, of Debian's package, that finds and scrapes a cluster's pods as it would in the cluster.

It runs beside the tests and reaches pods through the API server, with the rights of KUBECONFIG. Debian builds
it without Kubernetes' service discovery: files have what that would find, under its labels, and the jobs that
choose among it are the usual `kubernetes-pods` and those of the chart's PodMonitor and ServiceMonitor.
"""

from __future__ import annotations

import base64
import json
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

from tests.cluster import monitors
from tests.cluster.cluster import ROOT, Cluster, Object, wait_until
from tests.deploy.promql import ALERTS

ANNOTATED = "kubernetes-pods"

_PLACE = ROOT / ".build" / "prometheus"

_META = "__meta_kubernetes_"
_ANNOTATED: list[Object] = [
    {
        "source_labels": [f"{_META}pod_annotation_prometheus_io_scrape"],
        "regex": "true",
        "action": "keep",
    },
    # One target for each pod: its port is that of the annotation.
    {
        "source_labels": [f"{_META}pod_annotation_prometheus_io_port"],
        "target_label": f"{_META}pod_container_port_number",
        "action": "keepequal",
    },
]
"""The usual job `kubernetes-pods`, by annotations."""
_PATH = {
    "source_labels": [
        f"{_META}namespace",
        f"{_META}pod_name",
        f"{_META}pod_container_port_number",
        f"{_META}pod_annotation_prometheus_io_path",
    ],
    "regex": "(.+);(.+);(.+);(.+)",
    "replacement": "/api/v1/namespaces/$1/pods/$2:$3/proxy$4",
    "target_label": "__metrics_path__",
}


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
    (folder / "prometheus.yml").write_text(json.dumps(_config(cluster, folder, server, files)))
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


def _config(cluster: Cluster, folder: Path, server: str, files: dict[str, Path]) -> Object:
    """As Prometheus reads it: the job by annotations, and those of the chart's monitors."""
    annotated = folder / "pods.json"
    annotated.write_text(json.dumps(monitors.pods(cluster, "ztunnel-system")))
    tls = {"ca_file": str(files["ca"]), "cert_file": str(files["cert"]), "key_file": str(files["key"])}
    common = {"scheme": "https", "tls_config": tls}
    through: list[Object] = [
        _PATH,
        {"target_label": "__address__", "replacement": server},
        {"source_labels": [f"{_META}pod_name"], "target_label": "instance"},
    ]
    own = {"job_name": ANNOTATED, "file_sd_configs": [{"files": [str(annotated)]}]}
    return {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [
            {**common, **own, "relabel_configs": [*_ANNOTATED, *through]},
            *monitors.jobs(cluster, folder, through, common),
        ],
    }


def _answers(prometheus: Prometheus, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()[-2000:]
    try:
        return bool(prometheus.targets())
    except OSError:
        time.sleep(0.2)
        return False
