"""Telemetry on its way to waypoints, and what of it is said to have no effect."""

from __future__ import annotations

import pytest

from tests.control.policies.test_guard import ALL
from tests.control.test_mesh_config import config
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import Key
from ztunnel.control.source.inventory import Inventory, gather
from ztunnel.control.status.conditions import wanted
from ztunnel.control.translation import Translator
from ztunnel.model.telemetry import AccessLogging, Tracing
from ztunnel.model.telemetry import Telemetry as Wishes
from ztunnel.xds.resource import TELEMETRY

PROVIDERS = """
extensionProviders:
- {name: otel, opentelemetry: {service: otel.shop.svc.cluster.local, port: 4317}}
- {name: asks, envoyExtAuthzHttp: {service: a.b, port: 80}}
"""


def telemetry(spec: str, name: str = "t", namespace: str = "shop", created: str = "") -> str:
    date = f', creationTimestamp: "{created}"' if created else ""
    return (
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\n"
        f"metadata: {{name: {name}, namespace: {namespace}{date}}}\nspec: {{{spec}}}\n---\n"
    )


class Mesh:
    """A translator over manifests."""

    def __init__(self, text: str = ALL) -> None:
        self.translator = Translator(MeshSettings())
        self._fixed = text
        self.inventory = Inventory()
        self.translator.update(config(PROVIDERS))
        self.unsettled: set[Key] = set()

    def write(self, text: str) -> dict[str, object]:
        """The Telemetry objects are these now; what waypoints are sent of them."""
        before, self.inventory = self.inventory, gather({"x.yaml": self._fixed + text}, self.inventory)
        assert self.inventory.faults == ()
        gone = dict.fromkeys(before.objects.keys() - self.inventory.objects.keys())
        delta = self.translator.update({**gone, **self.inventory.objects})
        self.unsettled = delta.unsettled
        return dict(delta.http.get(TELEMETRY, {}))

    def texts(self) -> list[str]:
        return [
            text.partition(": ")[2] for text in self.translator.warnings() if text.startswith("Telemetry ")
        ]

    def condition(self, name: str = "t", namespace: str = "shop") -> tuple[str, bool, str]:
        key = Key("Telemetry", namespace, name)
        said = self.translator.said(key)
        (found,) = wanted(self.inventory.objects[key], (), MeshSettings(), said)
        assert found.type == "WaypointAccepted"
        return found.reason, found.met, found.message


def test_waypoints_are_sent_what_concerns_them_and_only_what_changes() -> None:
    mesh = Mesh()
    wide = telemetry(
        "accessLogging: [{providers: [{name: envoy}]}]", namespace="istio-system", created="2026"
    )
    sent = mesh.write(wide + telemetry("targetRefs: [{kind: Gateway, name: wp}], tracing: [{}]"))
    assert sent == {
        "istio-system/t": Wishes(
            "t", "istio-system", True, created="2026", access_logging=(AccessLogging(("envoy",)),)
        ),
        "shop/t": Wishes("t", "shop", targets=("Gateway wp",), tracing=(Tracing(),)),
    }
    assert mesh.write(wide) == {"shop/t": None}
    assert mesh.write(wide) == {}
    assert mesh.texts() == []


def test_one_with_a_selector_is_for_nobody() -> None:
    mesh = Mesh()
    assert mesh.write(telemetry("selector: {matchLabels: {app: web}}, tracing: [{}]")) == {}
    assert "a selector is for no waypoint" in mesh.texts()[0]
    assert mesh.condition()[:2] == ("UnsupportedValue", False)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("tracing: [{providers: [{name: nobody}]}]", "tracing: provider 'nobody' is not known"),
        ("tracing: [{providers: [{name: asks}]}]", "tracing: provider 'asks' is of no use there"),
        ("tracing: [{providers: [{name: otel}]}]", ""),
        ("accessLogging: [{providers: [{name: otel}]}]", "accessLogging: provider 'otel' is of no use"),
        ("accessLogging: [{providers: [{name: envoy}]}]", ""),
        ("metrics: [{providers: [{name: prometheus}]}]", ""),
        ("metrics: [{providers: [{name: stackdriver}]}]", "metrics: provider 'stackdriver' is not known"),
        ("metrics: [{reportingInterval: 5s}]", "reportingInterval is not acted on"),
        ("metrics: [{overrides: [{match: {customMetric: mine}}]}]", "customMetric mine: there are no"),
        ("metrics: [{overrides: [{match: {metric: TCP_SENT_BYTES}}]}]", "TCP_SENT_BYTES: metrics of conn"),
        ("metrics: [{overrides: [{tagOverrides: {a: {value: \"'x'\"}}}]}]", "metrics: a: of requests only"),
        ("metrics: [{overrides: [{tagOverrides: {source_app: {operation: REMOVE}}}]}]", ""),
        ("tracing: [{useRequestIdForTraceSampling: true}]", "useRequestIdForTraceSampling is not acted on"),
    ],
)
def test_what_has_no_effect_is_said(spec: str, said: str) -> None:
    mesh = Mesh()
    mesh.write(telemetry(spec))
    texts = mesh.texts()
    assert (texts == []) if not said else (said in texts[0])
    reason, met, message = mesh.condition()
    assert met
    assert reason == ("PartiallyInvalid" if said else "Accepted")
    assert message.startswith("bound to the waypoints of shop")
    assert said in message


def test_of_two_for_one_namespace_the_younger_does_not_count_and_says_so() -> None:
    mesh = Mesh()
    mesh.write(telemetry("", "new", created="2027") + telemetry("", "old", created="2026"))
    assert mesh.texts() == [
        "Telemetry shop/old is older and for the same namespace: that one counts, this one does not"
    ]


@pytest.mark.parametrize(
    ("target", "reason", "met"),
    [
        ("{kind: Gateway, name: wp}", "Accepted", True),
        ("{kind: Service, name: web}", "AncestorNotBound", False),
        ("{kind: Service, name: nobody}", "TargetNotFound", False),
        ("{kind: GatewayClass, name: istio-waypoint}", "Invalid", False),
    ],
)
def test_the_status_says_what_becomes_of_targets(target: str, reason: str, met: bool) -> None:
    mesh = Mesh()
    mesh.write(telemetry(f"targetRefs: [{target}]"))
    assert mesh.condition()[:2] == (reason, met)


def test_a_provider_that_comes_settles_who_names_it() -> None:
    mesh = Mesh()
    mesh.write(telemetry("tracing: [{providers: [{name: later}]}]"))
    assert mesh.condition()[0] == "PartiallyInvalid"
    later = "extensionProviders: [{name: later, zipkin: {service: z.b, port: 9411}}]"
    delta = mesh.translator.update(config(later))
    assert Key("Telemetry", "shop", "t") in delta.unsettled
    assert mesh.condition()[0] == "Accepted"
