"""The pods that Deployments, StatefulSets, DaemonSets, Jobs and the like ask for.

| kind | pods | owner |
|---|---|---|
| Deployment | `<name>-<hash of the template>-<suffix>` | ReplicaSet `<name>-<hash of the template>` |
| ReplicaSet, ReplicationController, Job | `<name>-<suffix>` | itself |
| StatefulSet | `<name>-0`, `<name>-1`, ... | itself |
| DaemonSet | `<name>-<suffix>`, one for each node | itself |

Hashes and suffixes look as Kubernetes' own and are made of what they stand for: the same text gives the same
pods, and a changed template other ones.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any, Final

from ztunnel.demo.kinds import WORKLOADS
from ztunnel.demo.manifest import Body, Key, Manifest

OWNER: Final = "ztunnel.io/laboratory-owner"
"""Annotation of a pod that was made of a workload: `Deployment/<name>`."""

_HASH: Final = "ztunnel.io/laboratory-template"
"""Annotation of such a pod: the hash of the template that it was made of."""

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # of Kubernetes' random names: no vowels, no words
_MAX_BASE = 58  # of a generated name, before its suffix


def is_workload(key: Key) -> bool:
    """Whether pods are made of it."""
    return (key.group, key.kind) in WORKLOADS


def owner_of(pod: Manifest) -> Key | None:
    """The workload that a pod was made of."""
    kind, _, name = pod.pull("metadata.annotations", dict, {}).get(OWNER, "").partition("/")
    group = next((group for group, each in WORKLOADS if each == kind), None)
    return None if group is None else Key(group, kind, pod.key.namespace, name)


def same_template(one: Manifest, other: Manifest) -> bool:
    """Whether two pods of a workload were made of the same template."""
    first, second = (pod.pull("metadata.annotations", dict, {}).get(_HASH) for pod in (one, other))
    return bool(first == second)


def pods_of(workload: Manifest, nodes: Mapping[str, Mapping[str, str]]) -> list[Manifest]:
    """The pods that a workload asks for; a DaemonSet for one on each of `nodes` (with their labels) that it
    selects."""
    template = workload.pull("spec.template", dict, {})
    digest = _digest(json.dumps(template, sort_keys=True, default=str), 10)
    key, kind = workload.key, workload.key.kind
    if kind == "StatefulSet":
        return list(_stateful(workload, digest))
    if kind == "DaemonSet":
        wanted = workload.pull("spec.template.spec.nodeSelector", dict, {})
        chosen = [name for name, labels in nodes.items() if wanted.items() <= labels.items()]
        return [_on_node(workload, digest, node) for node in chosen]
    if kind == "Deployment":
        return [_deployed(workload, digest, suffix) for suffix in _suffixes(key, _replicas(workload))]
    if kind == "Job":
        return [_of_job(workload, digest, suffix) for suffix in _suffixes(key, _parallel(workload))]
    return [
        _pod(workload, f"{key.name[:_MAX_BASE]}-{suffix}", digest)
        for suffix in _suffixes(key, _replicas(workload))
    ]


def _deployed(workload: Manifest, digest: str, suffix: str) -> Manifest:
    owner = f"{workload.key.name}-{digest}"
    name = f"{owner[:_MAX_BASE].rstrip('-.')}-{suffix}"
    pod = _pod(workload, name, digest, ("ReplicaSet", owner))
    _labels(pod)["pod-template-hash"] = digest
    return pod


def _stateful(workload: Manifest, digest: str) -> Iterator[Manifest]:
    start = workload.pull("spec.ordinals.start", int, 0)
    for number in range(start, start + _replicas(workload)):
        name = f"{workload.key.name}-{number}"
        pod = _pod(workload, name, digest)
        _labels(pod).update(
            {
                "apps.kubernetes.io/pod-index": str(number),
                "controller-revision-hash": f"{workload.key.name}-{digest}"[:63],
                "statefulset.kubernetes.io/pod-name": name,
            }
        )
        spec = pod.body["spec"]
        spec.update(hostname=name, subdomain=workload.pull("spec.serviceName", str, ""))
        yield pod


def _on_node(workload: Manifest, digest: str, node: str) -> Manifest:
    name = f"{workload.key.name[:_MAX_BASE]}-{_digest(f'{workload.key}/{node}', 5)}"
    pod = _pod(workload, name, digest)
    _labels(pod)["controller-revision-hash"] = digest
    pod.body["spec"]["nodeName"] = node
    return pod


def _of_job(workload: Manifest, digest: str, suffix: str) -> Manifest:
    name = workload.key.name
    pod = _pod(workload, f"{name[:_MAX_BASE]}-{suffix}", digest)
    _labels(pod).update({"batch.kubernetes.io/job-name": name[:63], "job-name": name[:63]})
    return pod


def _pod(workload: Manifest, name: str, digest: str, owner: tuple[str, str] | None = None) -> Manifest:
    key = workload.key
    template = copy.deepcopy(workload.pull("spec.template", dict, {}))
    given: dict[str, Any] = template.get("metadata") or {}
    kind, owner_name = owner or (key.kind, key.name)
    api = "v1" if kind == "ReplicationController" else ("batch/v1" if kind == "Job" else "apps/v1")
    metadata = {
        **given,
        "name": name,
        "generateName": f"{owner_name}-",
        "namespace": key.namespace,
        "labels": dict(given.get("labels") or {}),
        "annotations": {
            **(given.get("annotations") or {}),
            OWNER: f"{key.kind}/{key.name}",
            _HASH: digest,
        },
        "ownerReferences": [{"apiVersion": api, "kind": kind, "name": owner_name, "controller": True}],
    }
    body: Body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": template.get("spec") or {},
    }
    return Manifest(Key("", "Pod", key.namespace, name), body, workload.file, workload.line)


def _labels(pod: Manifest) -> dict[str, str]:
    found: dict[str, str] = pod.body["metadata"]["labels"]
    return found


def _replicas(workload: Manifest) -> int:
    return workload.pull("spec.replicas", int, 1)


def _parallel(workload: Manifest) -> int:
    if workload.pull("spec.suspend", bool, False):
        return 0
    completions = workload.pull("spec.completions", int, -1)
    parallelism = workload.pull("spec.parallelism", int, 1)
    return parallelism if completions < 0 else min(parallelism, completions)


def _suffixes(key: Key, count: int) -> list[str]:
    """As many different ones; the first are the same whatever the count."""
    found: dict[str, None] = {}
    number = 0
    while len(found) < count:
        found[_digest(f"{key}/{number}", 5)] = None
        number += 1
    return list(found)


def _digest(text: str, length: int) -> str:
    number = int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "big")
    letters = []
    for _ in range(length):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return "".join(letters)
