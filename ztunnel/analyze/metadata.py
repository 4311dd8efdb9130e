"""What is doubtful in labels and annotations by which objects say how they are in the mesh: in the wrong
place, or of a value that nobody knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from ztunnel.analyze.finding import INVALID_ANNOTATION, MISPLACED, TWO_MESHES, Finding
from ztunnel.analyze.mesh import Mesh, Written
from ztunnel.analyze.policies import found
from ztunnel.control.services.workload import NEVER
from ztunnel.state.meta import FORWARDING, SAME_NODE

MODE: Final = "istio.io/dataplane-mode"
_MODES: Final = ("ambient", "none")
_INJECTION: Final = "istio-injection"
_REVISION: Final = "istio.io/rev"

TEMPLATES: Final = {
    "Deployment": "spec.template.metadata",
    "StatefulSet": "spec.template.metadata",
    "DaemonSet": "spec.template.metadata",
    "ReplicaSet": "spec.template.metadata",
    "ReplicationController": "spec.template.metadata",
    "Job": "spec.template.metadata",
    "CronJob": "spec.jobTemplate.spec.template.metadata",
}
"""Kinds that make pods, and where what counts for those stands."""


class Place(NamedTuple):
    """Where a name belongs.

    Attributes:
        labels: it is a label; else an annotation.
        kinds: of these objects; of what makes pods where pods are among them.
    """

    labels: bool
    kinds: tuple[str, ...]


_SERVED: Final = ("Namespace", "Service", "ServiceEntry", "WorkloadEntry", "Pod")
PLACES: Final[Mapping[str, Place]] = {
    MODE: Place(True, ("Namespace", "Pod")),
    "istio.io/use-waypoint": Place(True, _SERVED),
    "istio.io/use-waypoint-namespace": Place(True, _SERVED),
    "istio.io/ingress-use-waypoint": Place(True, ("Namespace", "Service", "ServiceEntry")),
    "istio.io/waypoint-for": Place(True, ("Gateway", "GatewayClass")),
    "istio.io/dry-run": Place(False, ("AuthorizationPolicy",)),
    SAME_NODE: Place(False, ("Namespace", "Pod")),
    FORWARDING: Place(False, ("Pod",)),
    "ztunnel.io/replicas": Place(False, ("Gateway",)),
}


def metadata_findings(mesh: Mesh) -> Iterator[Finding]:
    """All of them."""
    for one in mesh.written:
        labels, annotations = one.labels(), one.labels("metadata.annotations")
        yield from _misplaced(one, labels, annotations, one.kind)
        if (template := TEMPLATES.get(one.kind)) is not None:
            of_pods = one.labels(f"{template}.labels")
            yield from _misplaced(one, of_pods, one.labels(f"{template}.annotations"), "Pod")
            yield from _mode(one, of_pods, f"{template}.labels")
        if one.kind in ("Namespace", "Pod"):
            yield from _mode(one, labels, "metadata.labels")
        if one.kind == "Namespace":
            yield from _never(one, labels)
            yield from _two_meshes(one, labels)


def _misplaced(
    one: Written, labels: Mapping[str, str], annotations: Mapping[str, str], kind: str
) -> Iterator[Finding]:
    for name, place in PLACES.items():
        right, wrong = (labels, annotations) if place.labels else (annotations, labels)
        what = "label" if place.labels else "annotation"
        if name in wrong:
            yield found(MISPLACED, one, f"{name} does nothing here: it is {_a(what)}")
        elif name in right and kind in TEMPLATES and "Pod" in place.kinds:
            where = f"{TEMPLATES[kind]}.{what}s"
            yield found(MISPLACED, one, f"the {what} {name} does nothing here: pods take it from {where}")
        elif name in right and kind not in place.kinds:
            kinds = ", ".join(place.kinds)
            yield found(MISPLACED, one, f"the {what} {name} does nothing here: it is for {kinds}")


def _a(what: str) -> str:
    return f"an {what}" if what.startswith("a") else f"a {what}"


def _mode(one: Written, labels: Mapping[str, str], path: str) -> Iterator[Finding]:
    value = labels.get(MODE, "none")
    if value not in _MODES:
        message = f"{path}: {MODE} is {' or '.join(_MODES)}, not {value!r}: it does nothing"
        yield found(INVALID_ANNOTATION, one, message)


def _never(one: Written, labels: Mapping[str, str]) -> Iterator[Finding]:
    if labels.get(MODE) == "ambient" and one.name in NEVER:
        yield found(MISPLACED, one, f"the label {MODE} does nothing here: pods of {one.name} are in no mesh")


def _two_meshes(one: Written, labels: Mapping[str, str]) -> Iterator[Finding]:
    injects = [each for each in (_INJECTION, _REVISION) if labels.get(each, "disabled") != "disabled"]
    if labels.get(MODE) == "ambient" and injects:
        message = (
            f"{MODE} and {' and '.join(injects)}: pods that an istiod injects have a sidecar, and stay out "
            "of the ambient mesh"
        )
        yield found(TWO_MESHES, one, message)
