"""Gateway API resources read from manifests: only what the mesh needs of them.

Gateways of any class are read, those of other controllers included: their fields are not ours to judge, and
what is not known here is left alone (Gateway API v1, apis/v1/gateway_types.go)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ztunnel.state.field import Field
from ztunnel.state.meta import Meta, read_choice, read_labels, read_meta, read_port

_GATEWAY = (
    "addresses", "allowedListeners", "backendTLS", "defaultScope", "gatewayClassName", "infrastructure",
    "listeners", "tls",
)  # fmt: skip
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


@dataclass(frozen=True, slots=True)
class Requirement:
    """An entry of `matchExpressions`."""

    key: str
    operator: str
    values: tuple[str, ...]

    def admits(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels meets it; as Kubernetes has it, one without the label meets
        NotIn."""
        if self.operator == "In":
            return labels.get(self.key) in self.values
        if self.operator == "NotIn":
            return labels.get(self.key) not in self.values
        return (self.key in labels) is (self.operator == "Exists")


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All of it has to be met; an empty one selects everything."""

    labels: Mapping[str, str]
    requirements: tuple[Requirement, ...] = ()

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is meant."""
        return self.labels.items() <= labels.items() and all(one.admits(labels) for one in self.requirements)


@dataclass(frozen=True, slots=True)
class Listener:
    """A listener. `admits` says of which namespaces its routes may be: `Same`, `All`, `None`, or `Selector`
    (`namespaces`)."""

    port: int
    protocol: str
    admits: str = "Same"
    namespaces: LabelSelector | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Infrastructure:
    """What a Gateway says of the objects that are made for it. `parameters` names an object with more."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    parameters: str = ""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A Gateway. `addresses` are those of its status, by type and value: where its controller has it.
    `by_hand`: it names the service of what somebody runs for it (istio/istio
    pilot/pkg/config/kube/gateway: IsManaged)."""

    meta: Meta
    class_name: str
    listeners: tuple[Listener, ...]
    addresses: tuple[tuple[str, str], ...] = ()
    by_hand: bool = False
    infrastructure: Infrastructure = field(default_factory=Infrastructure)


@dataclass(frozen=True, slots=True)
class GatewayClass:
    """A GatewayClass: whose Gateways of it are."""

    meta: Meta
    controller: str


@dataclass(frozen=True, slots=True)
class ReferenceGrant:
    """Who may refer to objects of its namespace: (group, kind, namespace) to (group, kind, name), of which
    the name may be empty: any."""

    meta: Meta
    sources: tuple[tuple[str, str, str], ...]
    targets: tuple[tuple[str, str, str], ...]


def read_gateway(root: Field) -> Gateway:
    """gateway.networking.k8s.io Gateway."""
    meta, spec, status = read_meta(root), root.sub("spec"), root.sub("status")
    if spec is None:
        root.fault("spec is missing")
        return Gateway(meta, "", ())
    spec.only(_GATEWAY, similar_to=("gatewayClassName", "listeners"))
    name = spec.text("gatewayClassName")
    if not name:
        spec.fault("gatewayClassName is missing")
    return Gateway(
        meta,
        name,
        tuple(map(_listener, spec.each("listeners"))),
        tuple(
            (one.text("type", "IPAddress"), one.text("value"))
            for one in (status.each("addresses") if status else ())
        ),
        any(one.text("type") == "Hostname" for one in spec.each("addresses")),
        _infrastructure(spec.sub("infrastructure")),
    )


def read_gateway_class(root: Field) -> GatewayClass:
    """gateway.networking.k8s.io GatewayClass."""
    meta, spec = read_meta(root, namespaced=False), root.sub("spec")
    controller = spec.text("controllerName") if spec else ""
    if not controller:
        root.fault("spec.controllerName is missing")
    return GatewayClass(meta, controller)


def read_reference_grant(root: Field) -> ReferenceGrant:
    """gateway.networking.k8s.io ReferenceGrant."""
    meta, spec = read_meta(root), root.sub("spec")
    sources, targets = (spec.each("from"), spec.each("to")) if spec else ([], [])
    if not sources or not targets:
        root.fault("spec.from and spec.to are needed: it grants nothing")
    return ReferenceGrant(
        meta,
        tuple((one.text("group"), one.text("kind"), one.text("namespace")) for one in sources),
        tuple((one.text("group"), one.text("kind"), one.text("name")) for one in targets),
    )


def _infrastructure(place: Field | None) -> Infrastructure:
    if place is None:
        return Infrastructure()
    below, annotations = place.sub("parametersRef"), place.sub("annotations")
    return Infrastructure(
        read_labels(place, "labels"),
        {name: one.as_text() for name, one in annotations.pairs()} if annotations is not None else {},
        _parameters(below) if below is not None else "",
    )


def _parameters(place: Field) -> str:
    """Kind and name; of another group the kind has it, too."""
    group, kind, name = (place.text(one) for one in ("group", "kind", "name"))
    return f"{kind}.{group} {name}" if group else f"{kind} {name}"


def _listener(place: Field) -> Listener:
    number, routes = place.sub("port"), place.sub("allowedRoutes")
    below = routes.sub("namespaces") if routes else None
    chosen = below.sub("selector") if below else None
    admits = (read_choice(below, "from", "Same", "All", "None", "Selector") if below else "") or "Same"
    if admits == "Selector" and below is not None and chosen is None:
        below.fault("from: Selector needs a selector")
    return Listener(
        read_port(number) if number is not None else 0,
        place.text("protocol"),
        admits,
        _selector(chosen) if chosen is not None else None,
        place.text("name"),
    )


def _selector(place: Field) -> LabelSelector:
    place.only(["matchExpressions", "matchLabels"])
    return LabelSelector(
        read_labels(place, "matchLabels"),
        tuple(
            Requirement(
                one.text("key"),
                read_choice(one, "operator", *_OPERATORS),
                tuple(value.as_text() for value in one.each("values")),
            )
            for one in place.each("matchExpressions")
        ),
    )
