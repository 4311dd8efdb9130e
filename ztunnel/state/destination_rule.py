"""Istio's DestinationRule read from manifests, strictly: fields of networking.istio.io/v1 (v1beta1 and
v1alpha3 are the same schema), and what istiod's validation refuses (ValidateDestinationRule)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ztunnel.model.traffic import UNSAID, PortTraffic
from ztunnel.state.field import Field
from ztunnel.state.meta import Meta, read_labels, read_meta
from ztunnel.state.traffic_policy import read_traffic_policy

_HOST: Final = re.compile(r"\*|(\*\.)?[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?)*")
_SUBSET: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Subset:
    """Workloads of a host by their labels, and the policies for them."""

    name: str
    labels: Mapping[str, str]
    traffic: PortTraffic = UNSAID


@dataclass(frozen=True, slots=True)
class DestinationRule:
    """A DestinationRule. `host` is as it is written, in small letters; `selector` are the callers that it is
    for, all where it is empty; `unread` are fields that are not acted on."""

    meta: Meta
    host: str
    subsets: tuple[Subset, ...] = ()
    traffic: PortTraffic = UNSAID
    export_to: tuple[str, ...] = ()
    selector: Mapping[str, str] | None = None
    unread: tuple[str, ...] = ()

    @property
    def refusing(self) -> frozenset[str]:
        """Of `unread`, those without which nobody is called."""
        policies = (self.traffic.common, *(each.traffic.common for each in self.subsets))
        return frozenset(name for one in policies for name in one.unsupported)


def read_destination_rule(root: Field) -> DestinationRule:
    """networking.istio.io DestinationRule."""
    meta, spec = read_meta(root), root.sub("spec")
    if spec is None:
        root.fault("spec is missing")
        return DestinationRule(meta, "")
    spec.only(["exportTo", "host", "subsets", "trafficPolicy", "workloadSelector"])
    host = spec.text("host").lower()
    if len(host) > 253 or not _HOST.fullmatch(host):
        spec.fault("host is missing, or none: a short name, a DNS name, or one that begins with '*.'")
    traffic, unread = read_traffic_policy(spec)
    subsets, names = list[Subset](), set[str]()
    for place in spec.each("subsets"):
        subset, more = _subset(place)
        if subset.name in names:
            place.fault(f"the subset {subset.name!r} stands here twice")
        names.add(subset.name)
        subsets.append(subset)
        unread += more
    return DestinationRule(
        meta,
        host,
        tuple(subsets),
        traffic,
        tuple(one.as_text() for one in spec.each("exportTo")),
        _selector(spec),
        tuple(dict.fromkeys(unread)),
    )


def _subset(place: Field) -> tuple[Subset, tuple[str, ...]]:
    place.only(["labels", "name", "trafficPolicy"])
    name = place.text("name")
    if not _SUBSET.fullmatch(name):
        place.fault("a subset needs a name of letters, digits, '-', '_' and '.'")
    traffic, unread = read_traffic_policy(place)
    return Subset(name, read_labels(place, "labels"), traffic), unread


def _selector(spec: Field) -> Mapping[str, str] | None:
    place = spec.sub("workloadSelector")
    if place is None:
        return None
    place.only(["matchLabels"])
    return read_labels(place, "matchLabels")
