"""The chart's PodMonitor and ServiceMonitor as the jobs that the Prometheus operator makes of them
(prometheus-operator pkg/prometheus/promcfg.go), and what Kubernetes' discovery would find for these jobs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster, Object
from tests.deploy.chart import of_kind, render

OPERATOR = "--api-versions=monitoring.coreos.com/v1"
_META = "__meta_kubernetes_"


def jobs(cluster: Cluster, folder: Path, through: list[Object], common: Object) -> list[Object]:
    """One for each monitor; `through` are relabelings that come last, `common` what every job has."""
    rendered = render(OPERATOR)
    found = []
    for kind, role, key in (
        ("PodMonitor", pods, "podMetricsEndpoints"),
        ("ServiceMonitor", endpoints, "endpoints"),
    ):
        monitor = of_kind(rendered, kind)
        name, namespace = monitor["metadata"]["name"], monitor["metadata"]["namespace"]
        file = folder / f"{kind}.json"
        file.write_text(json.dumps(role(cluster, namespace)))
        [endpoint] = monitor["spec"][key]
        found.append(
            {
                **common,
                "job_name": f"{kind[0].lower()}{kind[1:]}/{namespace}/{name}/0",
                "file_sd_configs": [{"files": [str(file)]}],
                "relabel_configs": [*relabelings(kind, monitor, endpoint), *through],
            }
        )
    return found


def relabelings(kind: str, monitor: Object, endpoint: Object) -> list[Object]:
    """As the operator orders them."""
    selected, port = (
        ("pod", "pod_container_port_name") if kind == "PodMonitor" else ("service", "endpoint_port_name")
    )
    made: list[Object] = []
    for name, value in monitor["spec"]["selector"]["matchLabels"].items():
        label = sanitized(name)
        sources = [f"{_META}{selected}_label_{label}", f"{_META}{selected}_labelpresent_{label}"]
        made.append({"action": "keep", "source_labels": sources, "regex": f"({re.escape(value)});true"})
    made.append({"action": "keep", "source_labels": [f"{_META}{port}"], "regex": endpoint["port"]})
    for target, source in (
        ("namespace", "namespace"),
        ("pod", "pod_name"),
        ("container", "pod_container_name"),
    ):
        made.append({"source_labels": [f"{_META}{source}"], "target_label": target})
    own = endpoint.get("relabelings", [])
    return [
        *made,
        *({"source_labels": each["sourceLabels"], "target_label": each["targetLabel"]} for each in own),
    ]


def sanitized(name: str) -> str:
    """As Prometheus makes a label's name of one of Kubernetes' (util/strutil)."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


def described(kind: str, meta: Object) -> dict[str, str]:
    """Labels and annotations of an object, as discovery has them."""
    found = {}
    for word, values in (("label", meta.get("labels")), ("annotation", meta.get("annotations"))):
        for name, value in (values or {}).items():
            found[f"{_META}{kind}_{word}_{sanitized(name)}"] = value
            found[f"{_META}{kind}_{word}present_{sanitized(name)}"] = "true"
    return found


def of_pod(pod: Object) -> dict[str, str]:
    """What is the same for all targets of a pod (discovery/kubernetes/pod.go)."""
    return {
        f"{_META}namespace": pod["metadata"]["namespace"],
        f"{_META}pod_name": pod["metadata"]["name"],
        f"{_META}pod_node_name": pod["spec"].get("nodeName", ""),
        f"{_META}pod_phase": pod["status"].get("phase", ""),
        **described("pod", pod["metadata"]),
    }


def ports(pod: Object) -> list[tuple[str, dict[str, str]]]:
    """Each port of each container, with its labels."""
    return [
        (
            str(port["containerPort"]),
            {
                f"{_META}pod_container_name": container["name"],
                f"{_META}pod_container_port_name": port.get("name", ""),
                f"{_META}pod_container_port_number": str(port["containerPort"]),
            },
        )
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
    ]


def pods(cluster: Cluster, namespace: str) -> list[Object]:
    """Role `pod`: a target for each port of each container."""
    return [
        {"targets": [f"{pod['status'].get('podIP', '')}:{number}"], "labels": {**of_pod(pod), **labels}}
        for pod in cluster.pods(namespace)
        for number, labels in ports(pod)
    ]


def endpoints(cluster: Cluster, namespace: str) -> list[Object]:
    """Role `endpoints`: a target for each address and port of each service (its endpoints.go)."""
    by_name = {pod["metadata"]["name"]: pod for pod in cluster.pods(namespace)}
    services = {
        each["metadata"]["name"]: each for each in cluster.get("services", namespace=namespace)["items"]
    }
    found: list[Object] = []
    for each in cluster.get("endpointslices", namespace=namespace)["items"]:
        service = services[each["metadata"]["labels"]["kubernetes.io/service-name"]]
        if each["addressType"] != "IPv4":
            continue
        for port in each["ports"]:
            for endpoint in each["endpoints"]:
                pod = by_name[endpoint["targetRef"]["name"]]
                own = next((labels for number, labels in ports(pod) if number == str(port["port"])), {})
                labels: dict[str, Any] = {
                    **of_pod(pod),
                    **own,
                    **described("service", service["metadata"]),
                    f"{_META}service_name": service["metadata"]["name"],
                    f"{_META}endpoint_port_name": port.get("name", ""),
                    f"{_META}endpoint_ready": str(endpoint["conditions"].get("ready", False)).lower(),
                }
                found.append({"targets": [f"{endpoint['addresses'][0]}:{port['port']}"], "labels": labels})
    return found
