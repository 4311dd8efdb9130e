"""Whether pods are ready, as their objects say it: what a kubelet writes after its probes.

A pod with a probe that can be carried out is not ready until the probe has succeeded. A condition that a user
wrote stands.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Final

from ztunnel.demo.assign import Objects
from ztunnel.demo.cluster import Pod
from ztunnel.demo.command import probed
from ztunnel.demo.manifest import Key, Manifest

_REASON: Final = "ReadinessProbe"
_WAITING = "has not been probed yet"


def undecided(objects: Objects, started: Iterable[Pod]) -> Objects:
    """The objects as they are while pods start: those that will be probed are not ready."""
    keys = [Key("", "Pod", pod.namespace, pod.name) for pod in started if probed(pod)]
    return judged(objects, {key: _WAITING for key in keys if not _is_written(objects[key])})


def judged(objects: Objects, verdicts: Mapping[Key, str]) -> Objects:
    """The objects with what probes said: why a pod is not ready, empty where it is; the same if all is so."""
    changed = {
        key: _with_readiness(objects[key], reason)
        for key, reason in verdicts.items()
        if not _is_written(objects[key]) and why_unready(objects[key]) != reason
    }
    return {**objects, **changed} if changed else objects


def why_unready(pod: Manifest) -> str:
    """What keeps a pod from being ready; empty where it is ready."""
    for condition in pod.pull("status.conditions", list, []):
        if condition.get("type") == "Ready" and condition.get("status") != "True":
            return str(condition.get("message") or condition.get("reason") or "its status says so")
    return ""


def _is_written(pod: Manifest) -> bool:
    """Whether a user wrote that it is not ready."""
    conditions = pod.pull("status.conditions", list, [])
    return any(
        condition.get("type") == "Ready"
        and condition.get("status") != "True"
        and condition.get("reason") != _REASON
        for condition in conditions
    )


def _with_readiness(pod: Manifest, reason: str) -> Manifest:
    body = copy.deepcopy(pod.body)
    conditions = [one for one in body["status"]["conditions"] if one.get("type") != "Ready"]
    ready = {"type": "Ready", "status": "False" if reason else "True"}
    if reason:
        ready.update(reason=_REASON, message=reason)
    body["status"]["conditions"] = [*conditions, ready]
    return pod.with_body(body)
