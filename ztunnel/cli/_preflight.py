"""Looks at a cluster, before a mesh is installed there and after, with the user's own credentials."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ztunnel.analyze.checks import Check
from ztunnel.analyze.forward import NODE, NoCluster, kubectl, list_pods
from ztunnel.analyze.preflight import RIGHTS, Cluster, Right, cluster_checks
from ztunnel.cli.status import node_states, why_not_made

_CILIUM = ("-n", "kube-system", "get", "configmap", "cilium-config", "--ignore-not-found", "-o", "json")
_REVIEW = "authorization.k8s.io/v1"


def preflight(namespace: str) -> list[Check]:
    """All checks of the cluster that kubectl reaches. `namespace` is the mesh's. What may not be looked at
    costs only itself. Raises NoCluster: it cannot be asked at all."""
    version = str(json.loads(kubectl(["version", "-o", "json"]))["serverVersion"]["gitVersion"])
    parts: dict[str, Callable[[], Any]] = {
        "nodes": lambda: _items("nodes"),
        "workloads": lambda: _items("daemonsets,deployments", "-A"),
        "namespaces": lambda: _items("namespaces"),
        "CustomResourceDefinitions": _definitions,
        "Cilium": lambda: json.loads(kubectl(_CILIUM) or "{}").get("data") or {},
        "your rights": lambda: _rights(namespace),
        "node proxies": lambda: node_states(list_pods(namespace, NODE), namespace),
        "the mesh's DaemonSets": lambda: why_not_made(namespace),
    }
    found: dict[str, Any] = {}
    unread: dict[str, str] = {}
    with ThreadPoolExecutor(len(parts)) as threads:
        begun = {name: threads.submit(part) for name, part in parts.items()}
        for name, one in begun.items():
            try:
                found[name] = one.result()
            except (NoCluster, ValueError) as error:
                unread[name] = str(error)
    return cluster_checks(
        Cluster(
            namespace,
            version,
            nodes=found.get("nodes", ()),
            workloads=found.get("workloads", ()),
            namespaces=found.get("namespaces", ()),
            definitions=found.get("CustomResourceDefinitions", ()),
            cilium=found.get("Cilium", {}),
            rights=found.get("your rights", {}),
            proxies=found.get("node proxies", ()),
            refusal=found.get("the mesh's DaemonSets", ""),
            unread=unread,
        )
    )


def _items(kinds: str, *words: str) -> list[dict[str, Any]]:
    return list(json.loads(kubectl(["get", kinds, *words, "-o", "json"])).get("items") or ())


def _definitions() -> set[str]:
    names = kubectl(["get", "customresourcedefinitions", "-o", "name"]).split()
    return {name.rpartition("/")[2] for name in names}


def _rights(namespace: str) -> dict[Right, bool]:
    """By one request of many reviews, which everybody may ask for."""
    reviews = [
        {
            "apiVersion": _REVIEW,
            "kind": "SelfSubjectAccessReview",
            "spec": {
                "resourceAttributes": {
                    "verb": right.verb,
                    "group": right.group,
                    "resource": right.resource,
                    **({"namespace": namespace} if right.own else {}),
                }
            },
        }
        for right in RIGHTS
    ]
    text = "\n---\n".join(map(json.dumps, reviews))
    answers = _objects(kubectl(["create", "-f", "-", "-o", "json"], text))
    held = [bool(one.get("status", {}).get("allowed")) for one in answers]
    return dict(zip(RIGHTS, held, strict=True))


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Those that kubectl prints, one behind the other or in a list."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text := text.rstrip()):
        value, at = decoder.raw_decode(text, at)
        yield from value["items"] if value.get("kind") == "List" else (value,)
        at += len(text[at:]) - len(text[at:].lstrip())
