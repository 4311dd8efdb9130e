"""Which kinds of objects the laboratory makes something of, which it leaves out, and which no cluster knows.

A kind that is misspelt within a group that is read here would be a policy that never comes into force, or a
pod that never runs: it is an error, as it is at a Kubernetes API. What other groups have is not known here
and left out; that is said for each object.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from enum import Enum, auto
from typing import Final

from ztunnel.control.source.document import KINDS

WORKLOADS: Final[Mapping[tuple[str, str], str]] = {
    ("apps", "Deployment"): "v1",
    ("apps", "DaemonSet"): "v1",
    ("apps", "ReplicaSet"): "v1",
    ("apps", "StatefulSet"): "v1",
    ("batch", "Job"): "v1",
    ("", "ReplicationController"): "v1",
}
"""Kinds of which pods are made, by group, with the version that is read."""

_LEFT_OUT: Final[Mapping[str, str]] = {
    "": "Binding ComponentStatus Event LimitRange PersistentVolume PersistentVolumeClaim "
    "PodTemplate ResourceQuota",
    "apps": "ControllerRevision",
    "batch": "CronJob",
    "discovery.k8s.io": "",
    "security.istio.io": "",
    "telemetry.istio.io": "",
}


class Standing(Enum):
    """What becomes of an object of a kind."""

    READ = auto()
    WORKLOAD = auto()
    LEFT_OUT = auto()


def standing(api_version: str, kind: str) -> Standing | str:
    """What becomes of objects of this kind, or what is wrong with the kind."""
    group, _, version = api_version.rpartition("/")
    if (group, kind) in KINDS:
        return Standing.READ
    if (group, kind) in WORKLOADS:
        wanted = WORKLOADS[group, kind]
        return (
            Standing.WORKLOAD
            if version == wanted
            else f"{kind} is read in the version {_join(group, wanted)}"
        )
    if kind in _LEFT_OUT.get(group, "").split():
        return Standing.LEFT_OUT
    return _wrong_group(group, kind) or _wrong_kind(group, kind) or Standing.LEFT_OUT


def is_read(group: str, kind: str) -> bool:
    """Whether node proxies, or the laboratory, make something of such an object."""
    return (group, kind) in KINDS or (group, kind) in WORKLOADS


def why_left_out(kind: str) -> str:
    """What is said of an object that is left out."""
    return "not run: a laboratory has no schedule" if kind == "CronJob" else "not read"


def _wrong_kind(group: str, kind: str) -> str:
    """A kind that a group which we read does not have."""
    if group not in _LEFT_OUT or (group == "" and kind == "List"):
        return ""
    known = {*_LEFT_OUT[group].split(), *(each for its, each in (*KINDS, *WORKLOADS) if its == group)}
    lower = {each.lower(): each for each in known}
    near = get_close_matches(kind.lower(), lower, n=1, cutoff=0.6)
    there = f"did you mean {lower[near[0]]}?" if near else f"there are: {', '.join(sorted(known))}"
    return f"no kind {kind!r} in {group or 'the core group, v1'}; {there}"


def _wrong_group(group: str, kind: str) -> str:
    """A group that is a slip of the one that has this kind, or an old one of it."""
    for (right, name), version in _versions().items():
        slip = group in ("", "extensions") or get_close_matches(group, [right or "v1"], n=1, cutoff=0.75)
        if name == kind and group != right and slip:
            return f"{kind} is of apiVersion {_join(right, version)}"
    return ""


def _versions() -> dict[tuple[str, str], str]:
    return {**{key: kind.versions[0] for key, kind in KINDS.items()}, **WORKLOADS}


def _join(group: str, version: str) -> str:
    return f"{group}/{version}" if group else version
