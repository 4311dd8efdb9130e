"""All that can be said about a mesh without running it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from ztunnel.analyze.finding import PATTERN, SCHEMA, Finding, Suppression, without
from ztunnel.analyze.mesh import Mesh
from ztunnel.analyze.metadata import metadata_findings
from ztunnel.analyze.network_policies import network_policy_findings
from ztunnel.analyze.objects import object_findings
from ztunnel.analyze.policies import policy_findings
from ztunnel.analyze.routes import route_findings
from ztunnel.analyze.seen import seen_findings

_NO_PATTERN: Final = "not a regular expression of RE2"
_SYSTEM: Final = ("kube-system", "kube-public", "kube-node-lease", "local-path-storage")


def analyze(mesh: Mesh, namespace: str = "", suppressions: Iterable[Suppression] = ()) -> list[Finding]:
    """What is wrong or doubtful, the worst first.

    Args:
        mesh: its objects.
        namespace: only what is in this namespace, or is the namespace itself; "" for all but those of
            Kubernetes itself, which nobody has written.
        suppressions: what is not to be shown.
    """
    every = [
        *_faults(mesh),
        *policy_findings(mesh),
        *seen_findings(mesh),
        *network_policy_findings(mesh),
        *object_findings(mesh),
        *metadata_findings(mesh),
        *route_findings(mesh),
    ]
    shown = [one for one in every if _is_in(one, namespace)]
    return without(shown, suppressions)


def _is_in(finding: Finding, namespace: str) -> bool:
    if not namespace:
        return not any(f" {each}/" in finding.what for each in _SYSTEM)
    return f" {namespace}/" in finding.what or finding.what == f"Namespace {namespace}"


def _faults(mesh: Mesh) -> Iterator[Finding]:
    for fault in mesh.faults:
        what, _, field = fault.field.rpartition(": ")
        message = f"{field}: {fault.message}" if field else fault.message
        code = PATTERN if _NO_PATTERN in fault.message else SCHEMA
        yield Finding(code.code, code.level, what or "document", message, fault.file, fault.line)
