"""What became of an object that was applied, in a few words, and whether what was made of it is right."""

from __future__ import annotations

from dataclasses import replace

from ztunnel.control.source import reading
from ztunnel.demo.assign import Objects
from ztunnel.demo.cluster import Difference
from ztunnel.demo.manifest import Key, render
from ztunnel.demo.workloads import is_workload, owner_of
from ztunnel.errors import ConfigError, Fault


def outcome(key: Key, before: Objects, after: Objects, change: Difference) -> str:
    """`added`, `changed`, `restarted`, `unchanged` or `removed`; for a workload, what became of its pods."""
    if key not in after:
        return "removed" + _pods(key, before, after, change)
    if key not in before:
        return "added" + _pods(key, before, after, change)
    if key.kind == "Pod" and any(
        (pod.namespace, pod.name) == (key.namespace, key.name) for pod in change.pods_new
    ):
        return "restarted"
    same = before[key].body == after[key].body
    return ("unchanged" if same else "changed") + _pods(key, before, after, change)


def _pods(key: Key, before: Objects, after: Objects, change: Difference) -> str:
    if not is_workload(key):
        return ""
    counts = {
        verb: sum(
            owner_of(objects[pod_key]) == key
            for pod in pods
            if (pod_key := Key("", "Pod", pod.namespace, pod.name)) in objects
        )
        for verb, objects, pods in (
            ("started", after, change.pods_new),
            ("stopped", before, change.pods_gone),
        )
    }
    said = [f"{count} pod{'s' if count > 1 else ''} {verb}" for verb, count in counts.items() if count]
    return f", {', '.join(said)}" if said else ""


def check_completed(before: Objects, after: Objects) -> None:
    """What is handed to node proxies is what their reader accepts.

    Raises:
        ConfigError: with all that it would refuse, and where the user wrote it.
    """
    faults: list[Fault] = []
    for key, manifest in after.items():
        if before.get(key) is not manifest and not is_workload(key):
            found = reading.parse(render(manifest)).all_faults
            faults += [
                replace(fault, file=manifest.file, line=manifest.line, field=f"{key}: {fault.field}")
                for fault in found
            ]
    if faults:
        raise ConfigError(*dict.fromkeys(faults))
