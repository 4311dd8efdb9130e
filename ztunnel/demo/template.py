"""Finds faults in what makes pods: Deployment, StatefulSet, DaemonSet, Job, ReplicaSet and the like.

A template is read as the pod that it becomes, by the reader that node proxies have for pods; paths and lines
are those of the text that the user wrote.
"""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from ztunnel.demo.tree import Item, child, mapping, named
from ztunnel.state.field import Field
from ztunnel.state.kube import read_pod
from ztunnel.state.manifest import Notes, YamlField
from ztunnel.state.meta import read_labels, read_meta

MAX_PODS = 1000
"""Of one workload: more than a laboratory of one machine has room for."""

_READ: Mapping[str, tuple[str, ...]] = {
    "Deployment": ("replicas", "selector", "template"),
    "StatefulSet": ("ordinals", "replicas", "selector", "serviceName", "template"),
    "DaemonSet": ("selector", "template"),
    "ReplicaSet": ("replicas", "selector", "template"),
    "ReplicationController": ("replicas", "selector", "template"),
    "Job": ("completions", "parallelism", "suspend", "template"),
}


def check_workload(item: Item, notes: Notes) -> None:
    """Note what is wrong in a workload's own fields and in its template."""
    root = YamlField(item.node, item.path, notes)
    root.note_duplicates()
    read_meta(root)
    spec, read = root.sub("spec"), _READ[item.kind]
    if spec is None:
        root.fault("spec is missing")
        return
    spec.only(read, similar_to=read)
    for name in ("replicas", "completions", "parallelism"):
        if name in read and (place := spec.sub(name)) is not None:
            _check_count(place)
    spec.flag("suspend")
    template = child(item.node, "spec", "template")
    if template is None:
        spec.fault("template is missing")
        return
    labels = _check_template(template, f"{spec.path}.template", notes)
    _check_selector(spec, item.kind, labels)


def _check_template(template: yaml.Node, path: str, notes: Notes) -> Mapping[str, str]:
    """The labels of the pods to be."""
    place = YamlField(template, path, notes)
    spec = place.sub("spec")
    if spec is None:
        place.fault("spec is missing")
        return {}
    if not spec.each("containers"):
        spec.fault("containers are missing")
    metadata = named(child(template, "metadata"), template, "x")
    pod = mapping(template, metadata=metadata, spec=child(template, "spec"))
    return read_pod(YamlField(pod, path, notes)).meta.labels


def _check_selector(spec: Field, kind: str, labels: Mapping[str, str]) -> None:
    selector = spec.sub("selector")
    if kind == "Job":
        return
    if selector is None:
        if kind != "ReplicationController":
            spec.fault("selector is missing")
        return
    if kind == "ReplicationController":
        wanted = read_labels(spec, "selector")
    else:
        selector.only(["matchExpressions", "matchLabels"])
        wanted = read_labels(selector, "matchLabels")
    if wanted.items() - labels.items():
        selector.fault("does not match the labels of the template")


def _check_count(place: Field) -> None:
    number = place.as_number()
    if number is not None and not 0 <= number <= MAX_PODS:
        place.fault(f"must be a number from 0 to {MAX_PODS}")
