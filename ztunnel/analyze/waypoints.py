"""Waypoints as an operator asks for them and is shown them, in istioctl's words (istio/istio
istioctl/pkg/waypoint)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ztunnel.control.settings import ISTIO_WAYPOINT_CLASS, WAYPOINT_CLASS
from ztunnel.control.waypoints.use_waypoint import HBONE_PORT, USE

FOR: Final = "istio.io/waypoint-for"
REVISION: Final = "istio.io/rev"
USE_NAMESPACE: Final = "istio.io/use-waypoint-namespace"
MODE: Final = "istio.io/dataplane-mode"
TRAFFIC: Final = ("service", "workload", "all", "none")
CLASSES: Final = (WAYPOINT_CLASS, ISTIO_WAYPOINT_CLASS)
_GAP: Final = "   "

Value = dict[str, Any]


def manifest(
    name: str, namespace: str, traffic: str = "", revision: str = "", of_class: str = WAYPOINT_CLASS
) -> Value:
    """The Gateway of a waypoint."""
    wanted = ((FOR, traffic), (REVISION, revision))
    labels = {label: value for label, value in wanted if value}
    meta: Value = {"name": name, "namespace": namespace, **({"labels": labels} if labels else {})}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": meta,
        "spec": {
            "gatewayClassName": of_class,
            "listeners": [{"name": "mesh", "port": HBONE_PORT, "protocol": "HBONE"}],
        },
    }


@dataclass(frozen=True, slots=True)
class Row:
    """One waypoint. `programmed` is the condition's status, with its reason and message; empty where nobody
    has said anything about it as it is now."""

    namespace: str
    name: str
    revision: str
    traffic: str
    programmed: str
    reason: str
    message: str


def rows(gateways: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Those of waypoints among these Gateways, in order."""
    found = (one for one in gateways if (one.get("spec") or {}).get("gatewayClassName") in CLASSES)
    return sorted(map(row_of, found), key=lambda one: (one.namespace, one.name))


def row_of(gateway: Mapping[str, Any]) -> Row:
    """Of one Gateway."""
    meta, status = gateway["metadata"], gateway.get("status") or {}
    labels = meta.get("labels") or {}
    said: Mapping[str, Any] = next(
        (
            one
            for one in status.get("conditions") or ()
            if one.get("type") == "Programmed" and one.get("observedGeneration") == meta.get("generation")
        ),
        {},
    )
    return Row(
        meta["namespace"], meta["name"], labels.get(REVISION, "default"), labels.get(FOR, "service"),
        str(said.get("status", "")), str(said.get("reason", "")), str(said.get("message", "")),
    )  # fmt: skip


def as_list(found: Sequence[Row], *, namespaces: bool) -> str:
    """The table of `list`."""
    head = ("NAME", "REVISION", "TRAFFIC TYPE", "PROGRAMMED")
    lines = [(one.name, one.revision, one.traffic, one.programmed or "Unknown") for one in found]
    return _table(head, lines, found if namespaces else ())


def as_status(found: Sequence[Row], *, namespaces: bool) -> str:
    """The table of `status`."""
    head = ("NAME", "STATUS", "TYPE", "REASON", "MESSAGE")
    lines = [
        (one.name, one.programmed or "Unknown", "Programmed", one.reason or "Pending",
         one.message or "no control plane has said anything about it yet")
        for one in found
    ]  # fmt: skip
    return _table(head, lines, found if namespaces else ())


def _table(head: Sequence[str], lines: Sequence[Sequence[str]], spaces: Sequence[Row]) -> str:
    if spaces:
        head = ("NAMESPACE", *head)
        lines = [(row.namespace, *line) for row, line in zip(spaces, lines, strict=True)]
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    return "\n".join(
        _GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (head, *lines)
    )


def users(name: str, namespace: str, objects: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Which of these namespaces, services, pods and entries have a label that names that waypoint."""
    for one in objects:
        meta = one["metadata"]
        labels, own = meta.get("labels") or {}, meta.get("namespace", "")
        kind = str(one.get("kind", "object")).lower()
        if labels.get(USE) == name and labels.get(USE_NAMESPACE, own or meta["name"]) == namespace:
            yield f"{kind} {own}/{meta['name']}" if own else f"{kind} {meta['name']}"


def enrolment(namespace: Mapping[str, Any], name: str, *, overwrite: bool) -> tuple[str, str]:
    """What is to be said before a namespace is labelled with a waypoint: a warning, and why it must not be;
    empty where there is nothing."""
    meta = namespace["metadata"]
    labels, text = meta.get("labels") or {}, meta["name"]
    warning = ""
    if labels.get(MODE) != "ambient":
        warning = (
            f"namespace {text} is not in the mesh: label it {MODE}=ambient, or its calls do not go through "
            "its waypoint"
        )
    before = labels.get(USE, name)
    refusal = "" if before == name or overwrite else (
        f"namespace {text} has the label {USE}: {before} already: --overwrite replaces it"
    )  # fmt: skip
    return warning, refusal
