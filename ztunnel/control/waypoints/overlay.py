"""What somebody wants otherwise of the objects that are made for a Gateway: `parametersRef` names a ConfigMap
with a piece of each object, which is laid over it as a strategic merge patch (Istio's
pilot/pkg/config/kube/gateway/deploymentcontroller.go, applyOverlay; Kubernetes' strategic-merge-patch.md).

Mappings are merged, null takes away, lists are replaced but for those whose elements have a key. What would
give a waypoint more of its node than any pod of the namespace should have through us is refused: the one who
writes a ConfigMap may be allowed less than the control plane."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from ztunnel.state.manifest import Notes, compose

Value = dict[str, Any]

OVERLAYS: Final = (
    "deployment", "service", "serviceAccount", "podDisruptionBudget", "horizontalPodAutoscaler",
)  # fmt: skip
"""The keys of the ConfigMap."""
OWN_CONTAINER: Final = "waypoint"
_ITS_NAMES: Final = ("istio-proxy",)
"""What others call the container of a waypoint."""
_HEAD: Final = ("apiVersion", "kind", "metadata", "spec")
_OF_METADATA: Final = ("labels", "annotations")
_DIRECTIVE: Final = "$patch"
_REPLACE: Final = {_DIRECTIVE: "replace"}
"""An element that says so of its list."""

_KEYS: Final = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey",),
    "ports": ("containerPort", "port"),
}
"""Of lists that are merged: by what their elements are known, whichever of these they have."""

_OF_NODES: Final = ("hostNetwork", "hostPID", "hostIPC", "hostPath", "hostPort", "hostUsers", "privileged")


class BadOverlay(Exception):
    """One that cannot be taken; the message says which, and why."""


def read_overlays(data: Mapping[str, Any]) -> dict[str, Value]:
    """The overlays of a ConfigMap, by their keys. Raises BadOverlay."""
    unknown = sorted(name for name in data if name not in OVERLAYS)
    if unknown:
        raise BadOverlay(f"{unknown[0]}: not one of {', '.join(OVERLAYS)}")
    return {name: _read(name, text) for name, text in data.items() if str(text).strip()}


def _read(name: str, text: object) -> Value:
    notes = Notes()
    composed = compose(str(text), notes)
    if composed is not None:
        composed.note_duplicates()
    for fault in notes.faults:
        raise BadOverlay(f"{name}: line {fault.line}: {fault.message}")
    if any(isinstance(each, yaml.AliasEvent) for each in yaml.parse(str(text), Loader=yaml.CSafeLoader)):
        raise BadOverlay(f"{name}: aliases are not taken")
    found = yaml.load(str(text), Loader=yaml.CSafeLoader)
    if not isinstance(found, dict):
        raise BadOverlay(f"{name}: has to be a mapping, as YAML")
    for where in _unfit(found):
        raise BadOverlay(f"{name}: {where}")
    return found


def _unfit(value: Value) -> Iterator[str]:
    """What of an overlay is not taken."""
    yield from (f"{one}: only metadata and spec are taken" for one in value if one not in _HEAD)
    metadata = value.get("metadata")
    if isinstance(metadata, dict):
        yield from (
            f"metadata.{one}: only labels and annotations are taken"
            for one in metadata
            if one not in _OF_METADATA
        )
    yield from _reaching(value, "")


def _reaching(value: object, path: str) -> Iterator[str]:
    """Where something reaches for the node, or a directive is one that is not known here."""
    if isinstance(value, dict):
        for name, one in value.items():
            where = f"{path}.{name}" if path else str(name)
            if name in _OF_NODES and one not in (None, False):
                yield f"{where}: a waypoint gets nothing of its node by a ConfigMap"
            elif str(name).startswith("$") and (name != _DIRECTIVE or one not in ("delete", "replace")):
                yield f"{where}: only {_DIRECTIVE}: delete and {_DIRECTIVE}: replace are known"
            yield from _reaching(one, where)
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _reaching(one, f"{path}[{number}]")
    elif value is not None and not isinstance(value, str | int | float):
        yield f"{path}: has to be quoted, to be a text"


def lay_over(value: Value, overlay: Mapping[str, Any]) -> Value:
    """An object with what the overlay wants otherwise. What it is called, whose it is and what it selects
    stay as they are.

    Raises:
        BadOverlay: an element of a list has no key.
    """
    made = _merged(value, {name: one for name, one in overlay.items() if name in ("metadata", "spec")})
    metadata = {**made["metadata"]}
    for name in ("name", "namespace", "ownerReferences"):
        metadata[name] = value["metadata"][name]
    metadata["labels"] = {**(metadata.get("labels") or {}), **value["metadata"]["labels"]}
    made["metadata"] = metadata
    if "selector" in value.get("spec", {}):
        made["spec"] = {**made["spec"], "selector": value["spec"]["selector"]}
        template = made["spec"].get("template")
        if isinstance(template, dict):
            made["spec"]["template"] = _labelled(template, value["spec"]["template"])
    return made


def _labelled(template: Value, own: Value) -> Value:
    """The template of pods, with the labels by which they are known."""
    metadata = template.get("metadata")
    metadata = {**metadata} if isinstance(metadata, dict) else {}
    metadata["labels"] = {**(metadata.get("labels") or {}), **own["metadata"]["labels"]}
    return {**template, "metadata": metadata}


def _merged(value: Mapping[str, Any], patch: Mapping[str, Any]) -> Value:
    if patch.get(_DIRECTIVE) == "replace":
        return {name: one for name, one in patch.items() if name != _DIRECTIVE}
    made = dict(value)
    for name, one in patch.items():
        before = made.get(name)
        if one is None or (isinstance(one, dict) and one.get(_DIRECTIVE) == "delete"):
            made.pop(name, None)
        elif isinstance(one, dict):
            made[name] = _merged(before if isinstance(before, dict) else {}, one)
        elif isinstance(one, list) and name in _KEYS:
            made[name] = _joined(name, before if isinstance(before, list) else [], one)
        else:
            made[name] = one
    return made


def _joined(name: str, before: list[Any], patch: list[Any]) -> list[Any]:
    """A list whose elements have keys; new ones come last."""
    if _REPLACE in patch:
        before, patch = [], [one for one in patch if one != _REPLACE]
    found = {_key(name, one): one for one in before}
    for one in patch:
        if not isinstance(one, dict):
            raise BadOverlay(f"{name}: elements are mappings")
        one = _known(name, one)
        key = _key(name, one)
        if one.get(_DIRECTIVE) == "delete":
            found.pop(key, None)
        else:
            found[key] = _merged(found.get(key, {}), one)
    return list(found.values())


def _known(name: str, one: Value) -> Value:
    """An element by the name that it has here."""
    if name == "containers" and one.get("name") in _ITS_NAMES and "image" not in one:
        return {**one, "name": OWN_CONTAINER}
    return one


def _key(name: str, one: Mapping[str, Any]) -> tuple[str, object]:
    for key in _KEYS[name]:
        if key in one:
            return key, one[key]
    raise BadOverlay(f"{name}: an element needs its {' or '.join(_KEYS[name])}")
