"""Manifests in the shapes of well-known example applications, brought up as they are."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ztunnel.demo.load import load
from ztunnel.demo.operate import Laboratory

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

# As Istio's Bookinfo: a Service, a ServiceAccount and a Deployment for each version.
BOOKINFO = """
apiVersion: v1
kind: Service
metadata:
  name: reviews
  labels: {app: reviews, service: reviews}
spec:
  ports:
  - port: 9080
    name: http
  selector:
    app: reviews
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: bookinfo-reviews
  labels: {account: reviews}
---
""" + "".join(
    f"""
apiVersion: apps/v1
kind: Deployment
metadata:
  name: reviews-{version}
  labels: {{app: reviews, version: {version}}}
spec:
  replicas: 1
  selector:
    matchLabels: {{app: reviews, version: {version}}}
  template:
    metadata:
      labels: {{app: reviews, version: {version}}}
    spec:
      serviceAccountName: bookinfo-reviews
      containers:
      - name: reviews
        image: docker.io/istio/examples-bookinfo-reviews-{version}:1.20.2
        imagePullPolicy: IfNotPresent
        env: [{{name: LOG_DIR, value: /tmp/logs}}]
        ports:
        - containerPort: 9080
        volumeMounts: [{{name: tmp, mountPath: /tmp}}]
        securityContext: {{runAsUser: 1000}}
      volumes: [{{name: tmp, emptyDir: {{}}}}]
---
"""
    for version in ("v1", "v2", "v3")
)

# As Online Boutique: probes of gRPC, init containers, a load generator without ports; a kustomization.
BOUTIQUE = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: cartservice, labels: {app: cartservice}}
spec:
  selector: {matchLabels: {app: cartservice}}
  template:
    metadata: {labels: {app: cartservice}}
    spec:
      serviceAccountName: cartservice
      terminationGracePeriodSeconds: 5
      containers:
      - name: server
        image: cartservice
        ports: [{containerPort: 7070}]
        env: [{name: REDIS_ADDR, value: "redis-cart:6379"}]
        resources: {requests: {cpu: 200m, memory: 64Mi}}
        readinessProbe: {initialDelaySeconds: 15, grpc: {port: 7070}}
        livenessProbe: {initialDelaySeconds: 15, periodSeconds: 10, grpc: {port: 7070}}
---
apiVersion: v1
kind: Service
metadata: {name: cartservice}
spec:
  type: ClusterIP
  selector: {app: cartservice}
  ports: [{name: grpc, port: 7070, targetPort: 7070}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: redis-cart}
spec:
  selector: {matchLabels: {app: redis-cart}}
  template:
    metadata: {labels: {app: redis-cart}}
    spec:
      containers:
      - name: redis
        image: redis:alpine@sha256:0000
        command: [redis-server-of-the-image, --appendonly, "no"]
        ports: [{containerPort: 6379}]
        readinessProbe: {periodSeconds: 5, tcpSocket: {port: 6379}}
---
apiVersion: v1
kind: Service
metadata: {name: redis-cart}
spec: {selector: {app: redis-cart}, ports: [{name: tcp-redis, port: 6379, targetPort: 6379}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: loadgenerator}
spec:
  replicas: 1
  selector: {matchLabels: {app: loadgenerator}}
  template:
    metadata: {labels: {app: loadgenerator}, annotations: {sidecar.istio.io/rewriteAppHTTPProbers: "true"}}
    spec:
      initContainers:
      - {name: frontend-check, image: busybox, command: [/bin/sh, -exc, "exit 1"]}
      containers: [{name: main, image: loadgenerator, env: [{name: FRONTEND_ADDR, value: "frontend:80"}]}]
"""

# As Sock Shop: a namespace of its own, privileged ports, a port that only the Service names, a database with
# names of its own, and much that a laboratory does not read.
SOCKS = """
apiVersion: v1
kind: Namespace
metadata: {name: sock-shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: front-end, namespace: sock-shop, labels: {name: front-end}}
spec:
  replicas: 2
  selector: {matchLabels: {name: front-end}}
  template:
    metadata: {labels: {name: front-end}}
    spec:
      containers:
      - name: front-end
        image: weaveworksdemos/front-end
        ports: [{containerPort: 8079}, {containerPort: 443}]
      - {name: metrics, image: exporter, ports: [{name: metrics, containerPort: 9100}]}
      nodeSelector: {beta.kubernetes.io/os: linux}
---
apiVersion: v1
kind: Service
metadata: {name: front-end, namespace: sock-shop}
spec:
  type: NodePort
  ports:
  - {name: http, port: 80, targetPort: 8079, nodePort: 30001}
  - {name: metrics, port: 81, targetPort: metrics}
  - {name: extra, port: 82, targetPort: 8282}
  selector: {name: front-end}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: carts-db, namespace: sock-shop}
spec:
  replicas: 2
  serviceName: carts-db
  selector: {matchLabels: {name: carts-db}}
  template:
    metadata: {labels: {name: carts-db}}
    spec: {containers: [{name: carts-db, image: mongo, ports: [{name: mongo, containerPort: 27017}]}]}
  volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce]}}]
---
apiVersion: v1
kind: Service
metadata: {name: carts-db, namespace: sock-shop}
spec: {clusterIP: None, ports: [{port: 27017, targetPort: mongo}], selector: {name: carts-db}}
---
{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
 "metadata": {"name": "front", "namespace": "sock-shop"}}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: sock-shop}
spec:
  selector: {matchLabels: {name: agent}}
  template:
    metadata: {labels: {name: agent}}
    spec: {hostNetwork: true, containers: [{name: a, ports: [{containerPort: 9999, hostPort: 9999}]}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: migrate, namespace: sock-shop}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: m, command: [echo, migrated]}]}}}
"""


def asked(laboratory: Laboratory, pod: str, url: str) -> str:
    done = laboratory.exec(pod, ["curl", "-sS", "-m", "3", url])
    assert done.returncode == 0, done
    return done.stdout.split('"')[3]


@pytest.fixture
def shapes(tmp_path: Path, laboratory: Laboratory) -> Laboratory:
    (tmp_path / "boutique").mkdir()
    (tmp_path / "boutique" / "kustomization.yaml").write_text("resources: [all.yaml]\n")
    (tmp_path / "boutique" / "all.yaml").write_text(BOUTIQUE)
    (tmp_path / "bookinfo.yaml").write_text(BOOKINFO)
    (tmp_path / "socks.yaml").write_text(SOCKS)
    loaded = load([tmp_path / "boutique", tmp_path / "bookinfo.yaml", tmp_path / "socks.yaml"])
    assert [f"{fault.field}: {fault.message}" for fault in loaded.left_out] == [
        "Ingress sock-shop/front: not read"
    ]
    laboratory.up(loaded, start_nodes=False)
    return laboratory


def test_every_port_of_every_shape_is_served_by_the_pods_behind_it(shapes: Laboratory) -> None:
    pods = shapes.cluster().pods
    by_app = {
        app: {pod.name for pod in pods if app in pod.labels.values()}
        for app in ("reviews", "cartservice", "redis-cart", "front-end", "carts-db", "agent")
    }
    assert {app: len(names) for app, names in by_app.items()} == {
        "reviews": 3,
        "cartservice": 1,
        "redis-cart": 1,
        "front-end": 2,
        "carts-db": 2,
        "agent": 2,
    }
    caller = next(pod.full_name for pod in pods if pod.name.startswith("loadgenerator"))
    for url, app in (
        ("http://reviews:9080/", "reviews"),
        ("http://cartservice:7070/", "cartservice"),
        ("http://redis-cart:6379/", "redis-cart"),
        ("http://front-end.sock-shop/", "front-end"),
        ("http://front-end.sock-shop:81/", "front-end"),
        ("http://front-end.sock-shop:82/", "front-end"),
        ("http://carts-db.sock-shop:27017/", "carts-db"),
        ("http://10.10.0.12:9999/", "agent"),
    ):
        assert asked(shapes, caller, url) in by_app[app]
    front = next(pod for pod in pods if pod.name in by_app["front-end"])
    for ip in front.addresses:
        host = f"[{ip}]" if ip.version == 6 else str(ip)
        for port in (443, 8079, 8282, 9100):
            assert asked(shapes, caller, f"http://{host}:{port}/") == front.name


def test_a_member_of_a_stateful_set_is_called_by_its_own_name(shapes: Laboratory) -> None:
    for name in ("carts-db-0", "carts-db-1"):
        for url in (f"{name}.carts-db", f"{name}.carts-db.sock-shop.svc.cluster.local"):
            assert asked(shapes, "sock-shop/carts-db-0", f"http://{url}:27017/") == name
    own = shapes.exec("sock-shop/carts-db-1", ["sh", "-c", "getent hosts $(hostname)"]).stdout
    assert own.split()[0] in map(str, shapes.pod("sock-shop/carts-db-1").addresses)


def test_a_job_runs_its_command_to_the_end(shapes: Laboratory) -> None:
    job = next(pod for pod in shapes.cluster().pods if pod.labels.get("job-name") == "migrate")
    while any(pod.running for pod in shapes.survey().pods if pod.name == job.name):
        pass
    assert shapes.pod_log(job.full_name) == "migrated\n"


def test_a_changed_deployment_replaces_its_pods_and_scales(
    shapes: Laboratory, new_name: Callable[[], str]
) -> None:
    before = {pod.name for pod in shapes.cluster().pods}
    text = next(part for part in SOCKS.split("---\n") if "name: front-end, namespace" in part)
    assert shapes.apply(text) == ["Deployment sock-shop/front-end unchanged"]
    assert shapes.apply(text.replace("replicas: 2", "replicas: 3")) == [
        "Deployment sock-shop/front-end changed, 1 pod started"
    ]
    assert before < {pod.name for pod in shapes.cluster().pods}
    image = text.replace("weaveworksdemos/front-end", f"other/{new_name()}")
    assert shapes.apply(image) == ["Deployment sock-shop/front-end changed, 2 pods started, 3 pods stopped"]
    assert asked(shapes, "sock-shop/carts-db-0", "http://front-end/").startswith("front-end-")
    assert shapes.apply(text, delete=True) == ["Deployment sock-shop/front-end removed, 2 pods stopped"]
