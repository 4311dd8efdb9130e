"""Pods of Deployments and StatefulSets in the mesh: their workloads' names, and their names in DNS."""

from __future__ import annotations

import pytest

from tests.mesh import lab
from tests.mesh.lab import Mesh

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

WORKLOAD = """
apiVersion: apps/v1
kind: {0}
metadata: {{name: {1}, namespace: shop}}
spec:
  replicas: 1
  serviceName: {1}
  selector: {{matchLabels: {{app: {1}}}}}
  template:
    metadata: {{labels: {{app: {1}, version: v7}}}}
    spec:
      nodeName: {2}
      serviceAccountName: {1}
      containers: [{{name: x, ports: [{{containerPort: 8080}}]}}]
---
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 8080}]}
---
"""
MANIFESTS = (
    lab.NODES
    + lab.namespace("shop")
    + WORKLOAD.format("Deployment", "web", "node-1").replace("  serviceName: web\n", "")
    + WORKLOAD.format("StatefulSet", "db", "node-2")
    + WORKLOAD.format("StatefulSet", "near", "node-1")
    + SERVICE
    + SERVICE.replace("db", "near")
)


@pytest.mark.parametrize("name", ["db", "near"], ids=["other node", "same node"])
def test_telemetry_names_the_workloads_and_not_the_pods(mesh: Mesh, name: str) -> None:
    caller = mesh.laboratory.pod("deploy/web")
    done = mesh.laboratory.exec(caller.full_name, ["curl", "-sS", "-m", "5", f"http://{name}-0.{name}:8080/"])
    assert f'"{name}-0"' in done.stdout, done.stderr
    labels = {
        "source_workload": "web",
        "source_canonical_service": "web",
        "source_canonical_revision": "v7",
        "source_app": "web",
        "source_version": "v7",
        "source_principal": "spiffe://cluster.local/ns/shop/sa/web",
        "destination_workload": name,
        "destination_canonical_service": name,
        "destination_app": name,
        "destination_version": "v7",
    }
    mesh.expect("node-1", 1, "istio_tcp_connections_closed_total", reporter="source", **labels)
    mesh.expect("node-1", 1, "istio_tcp_connections_opened_total", reporter="source", **labels)
    found = mesh.line("node-1", dst_workload=f"{name}-0", direction="outbound")
    assert found["src.workload"] == caller.name
    assert caller.name.startswith("web-")
