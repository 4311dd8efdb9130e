"""RateLimitPolicies: whose waypoint hears of them, and what is said about their targets."""

from __future__ import annotations

import pytest

from tests.control.policies.test_guard import ALL
from tests.control.policies.written import Written
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import Key
from ztunnel.control.source.inventory import Inventory, gather
from ztunnel.control.status.conditions import wanted
from ztunnel.control.translation import Translator
from ztunnel.model.rate_limit import Limit, LocalRule, RateLimitPolicy
from ztunnel.xds.resource import RATE_LIMIT

WEB = "{kind: Service, name: web}"
ROUTE = "{kind: HTTPRoute, group: gateway.networking.k8s.io, name: r}"
POLICY = Key("RateLimitPolicy", "shop", "p")
AN_HTTPROUTE = """apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{kind: Service, group: "", name: web}]}
---
"""


def limits(targets: str, limit: str = "{requests: 4, unit: Minute}", more: str = "") -> str:
    return (
        "apiVersion: ztunnel.io/v1alpha1\nkind: RateLimitPolicy\nmetadata: {name: p, namespace: shop}\n"
        f"spec: {{targetRefs: [{targets}], local: {{rules: [{{limit: {limit}}}]}}{more}}}\n---\n"
    )


class Mesh(Written):
    """The same, and what is said about the policy."""

    def __init__(self) -> None:
        super().__init__(Translator(MeshSettings()))

    def write(self, text: str) -> set[Key]:
        """The manifests are these now; the objects about whose standing something else is to be said."""
        return self.change(text).unsettled

    def sent(self) -> RateLimitPolicy:
        found = self.translator.http.in_force[RATE_LIMIT]["shop/p"]
        assert isinstance(found, RateLimitPolicy)
        return found

    def named(self) -> set[str]:
        """The services whose waypoint is told of the policy."""
        return self.told_of("rate_limits", "shop/p")

    def condition(self) -> tuple[bool, str, str]:
        one = self.inventory.objects[POLICY]
        (found,) = wanted(one, (), MeshSettings(), self.translator.said(POLICY), POLICY.kind)
        assert found.type == "WaypointAccepted"
        return found.met, found.reason, found.message


@pytest.mark.parametrize(
    ("targets", "named"),
    [
        (WEB, {"web"}),
        (f"{WEB}, {{kind: Service, name: other}}", {"web", "other"}),
        ("{kind: ServiceEntry, name: out}", {"out"}),
        ("{kind: Gateway, name: wp}", {"wp", "door"}),
        ("{kind: Service, name: nowhere}", set()),
        (ROUTE, set()),
    ],
)
def test_the_waypoint_of_what_is_targeted_is_told(targets: str, named: set[str]) -> None:
    mesh = Mesh()
    mesh.write(ALL + limits(targets))
    assert mesh.named() == named
    assert mesh.sent().rules == (LocalRule("rule 0", Limit(4, 60.0)),)
    mesh.write(ALL)
    assert mesh.named() == set()
    assert mesh.translator.http.in_force[RATE_LIMIT] == {}


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute", "VirtualService"])
def test_a_route_is_named_as_its_rules_name_it(kind: str) -> None:
    mesh = Mesh()
    mesh.write(ALL + limits(f"{{kind: {kind}, name: r}}, {WEB}"))
    assert mesh.sent().routes == (f"{kind} shop/r",)
    assert mesh.named() == {"web"}


def test_what_it_is_bound_to_stands_in_its_status() -> None:
    mesh = Mesh()
    mesh.write(ALL + limits("{kind: Gateway, name: wp}"))
    assert mesh.condition() == (True, "Accepted", "bound to shop/wp")
    mesh.write(ALL + limits("{kind: Service, name: nowhere}"))
    assert mesh.condition() == (False, "TargetNotFound", "Service shop/nowhere was not found")
    texts = mesh.translator.warnings()
    assert any(
        "RateLimitPolicy shop/p: Service shop/nowhere was not found: nobody enforces" in one for one in texts
    )
    mesh.write(ALL + limits("{kind: TCPRoute, name: r}"))
    assert mesh.condition()[:2] == (False, "Invalid")


def test_a_route_that_comes_or_goes_is_noticed() -> None:
    mesh = Mesh()
    mesh.write(ALL + limits(ROUTE))
    assert mesh.condition() == (False, "TargetNotFound", "HTTPRoute shop/r was not found")
    assert POLICY in mesh.write(ALL + limits(ROUTE) + AN_HTTPROUTE)
    assert mesh.condition() == (True, "Accepted", "bound to HTTPRoute shop/r")
    assert POLICY in mesh.write(ALL + limits(ROUTE))
    assert mesh.condition()[0] is False


def test_a_limit_of_none_is_remarked_upon() -> None:
    mesh = Mesh()
    mesh.write(ALL + limits("{kind: Gateway, name: wp}", "{requests: 0, unit: Hour}"))
    met, reason, message = mesh.condition()
    assert (met, reason) == (True, "PartiallyInvalid")
    assert message == "bound to shop/wp; rule 0: a limit of no requests refuses all that it is for"


def test_what_is_wrong_stands_in_its_status() -> None:
    found = gather({"x.yaml": ALL + limits(WEB, "{requests: 1}")}, Inventory())
    assert POLICY not in found.objects
    (condition,) = wanted(None, found.faults, MeshSettings(), kind=POLICY.kind)
    assert (condition.type, condition.met, condition.reason) == ("WaypointAccepted", False, "Invalid")
    assert "unit or fillInterval is needed" in condition.message
