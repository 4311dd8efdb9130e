"""What every Kubernetes object has, read strictly: a misspelled `labels` would take a pod out of the mesh."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ztunnel.errors import PeerError
from ztunnel.model.address import IPAddress, parse_ip
from ztunnel.model.workload import SameNode
from ztunnel.state.field import Field

SAME_NODE: Final = "ztunnel.io/same-node"
"""Annotation of a namespace or pod: `auto`, `direct` or `mtls`."""
FORWARDING: Final = "ztunnel.io/forwarding"
"""Annotation of a namespace or pod: `allow` or `refuse`."""

_FORWARDING = {"allow": True, "refuse": False}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_META = (
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
)


@dataclass(frozen=True, slots=True)
class Owner:
    """An entry of `metadata.ownerReferences`."""

    kind: str
    name: str
    controller: bool


@dataclass(frozen=True, slots=True)
class Meta:
    """What every object has. `namespace` is empty for Node and Namespace; `created` is RFC 3339 text or
    empty."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    created: str = ""
    deleting: bool = False
    owners: tuple[Owner, ...] = ()
    same_node: SameNode | None = None
    forwards: bool | None = None
    uid: str = ""

    @property
    def full_name(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name


def read_meta(root: Field, *, namespaced: bool = True) -> Meta:
    """`metadata` of an object, strictly."""
    meta = root.sub("metadata")
    if meta is None or not meta.is_mapping():
        root.fault("metadata is missing")
        return Meta("", "", {}, {})
    meta.only(_META)
    name, namespace = _name(meta, "name"), _name(meta, "namespace") or "default"
    if not name:
        meta.fault("name is missing: an object in a folder needs one, generateName does not make it")
    annotations = {key: value.as_text() for key, value in _pairs(meta, "annotations")}
    return Meta(
        name,
        namespace if namespaced else "",
        read_labels(meta, "labels"),
        annotations,
        meta.text("creationTimestamp"),
        meta.sub("deletionTimestamp") is not None,
        tuple(
            Owner(owner.text("kind"), owner.text("name"), owner.flag("controller"))
            for owner in meta.each("ownerReferences")
        ),
        _same_node(meta, annotations),
        _forwards(meta, annotations),
        meta.text("uid"),
    )


def read_labels(parent: Field, name: str) -> dict[str, str]:
    """A mapping of labels, or of labels to select by, in Kubernetes' label syntax."""
    labels = {}
    for key, value in _pairs(parent, name):
        prefix, _, short = key.rpartition("/")
        if not _LABEL_NAME.fullmatch(short) or (prefix and not _is_name(prefix)) or key.startswith("/"):
            value.fault(
                "not a label's name: [prefix/]name, a name of at most 63 letters, digits, '-', '_', '.'"
            )
        labels[key] = value.as_text()
        if not _LABEL_VALUE.fullmatch(labels[key]):
            value.fault("not a label's value: at most 63 letters, digits, '-', '_', '.'; a wildcard is none")
    return labels


def read_port(place: Field) -> int:
    """A port number from 1 to 65535; 0 with a fault for anything else."""
    port = place.as_number()
    if port is not None and not 0 < port < 65536:
        place.fault("a port is a number from 1 to 65535")
        return 0
    return port or 0


def read_ip(place: Field) -> tuple[IPAddress, ...]:
    """One address, or none with a fault."""
    text = place.as_text()
    try:
        return (parse_ip(text),) if text else ()
    except PeerError as error:
        place.fault(str(error))
        return ()


def read_choice(parent: Field, name: str, *choices: str) -> str:
    """The string of that name, empty where it is absent; a fault where it is none of `choices`."""
    place = parent.sub(name)
    value = "" if place is None else place.as_text()
    if place is not None and value and value not in choices:
        place.fault(f"must be one of {', '.join(choices)}")
    return value


def _name(parent: Field, name: str) -> str:
    place = parent.sub(name)
    value = "" if place is None else place.as_text()
    if place is not None and not _is_name(value):
        place.fault(
            "not a name: at most 253 small letters, digits, '-' and '.', no part begins or ends with '-'"
        )
    return value


def _is_name(text: str) -> bool:
    return len(text) <= 253 and _NAME.fullmatch(text) is not None


def _same_node(meta: Field, annotations: Mapping[str, str]) -> SameNode | None:
    value = annotations.get(SAME_NODE)
    if value is None:
        return None
    if value in list(SameNode):
        return SameNode(value)
    _fault(meta, SAME_NODE, SameNode)
    return None


def _forwards(meta: Field, annotations: Mapping[str, str]) -> bool | None:
    value = annotations.get(FORWARDING)
    if value is not None and value not in _FORWARDING:
        _fault(meta, FORWARDING, _FORWARDING)
    return _FORWARDING.get(value) if value is not None else None


def _fault(meta: Field, annotation: str, choices: Iterable[str]) -> None:
    place = meta.sub("annotations")
    for key, below in place.pairs() if place else ():
        if key == annotation:
            below.fault(f"must be one of {', '.join(choices)}")


def _pairs(parent: Field, name: str) -> list[tuple[str, Field]]:
    place = parent.sub(name)
    return [] if place is None else list(place.pairs())
