"""Which rule a request goes by at a waypoint, and where to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import service, workload, world_of
from tests.explain.test_waypoint import CLIENT, GATE, GATE_1, WEB
from ztunnel.explain.explanation import explain_call
from ztunnel.explain.names import find_call
from ztunnel.explain.path import Explanation
from ztunnel.explain.text import as_text
from ztunnel.explain.waypoint import HttpCall
from ztunnel.model.labels import WorkloadLabels
from ztunnel.model.route import Routes, RouteSource, Rule
from ztunnel.model.route_action import Destination, DirectResponse, Forward, Redirect, Refusal
from ztunnel.model.route_match import FieldMatch, Match, TextKind, TextMatch
from ztunnel.model.route_policy import ISTIO_RETRY, MILLION, Abort, Delay, Fault, Mirror
from ztunnel.model.service import ServiceName
from ztunnel.model.service_traffic import ServiceTraffic
from ztunnel.state.delta import apply

SOURCE = RouteSource("VirtualService", "shop", "web")
OTHER = service("other", "shop").at("10.96.0.2").port(90, 9090)
WEB_1 = workload("web-1", "shop").at("10.0.1.1", "fd00:1::1").on("n2").hbone().serves(WEB)
WEB_2 = workload("web-2", "shop").at("10.0.1.2", "fd00:1::2").on("n2").hbone().serves(WEB)
OTHER_1 = workload("other-1", "shop").at("10.0.1.3").on("n2").hbone().serves(OTHER)
LABELS = [WorkloadLabels(each.uid, frozenset({("version", f"v{n}")})) for n, each in ((1, WEB_1), (2, WEB_2))]
V1 = Destination(WEB.key, subset="v1", labels=(("version", "v1"),), weight=90)
V2 = Destination(WEB.key, subset="v2", labels=(("version", "v2"),), weight=10)
BAD = replace(V1, refusal=Refusal(500, "BackendNotFound"))
NO_EXPRESSION = Match(path=TextMatch(TextKind.REGEX, "("))


def rule(action: object, path: str = "/", **more: object) -> Rule:
    matches = (Match(path=TextMatch(TextKind.PREFIX, path)),)
    return Rule("r", SOURCE, action, matches, **more)  # type: ignore[arg-type]


def explained(
    *rules: Rule,
    http: HttpCall | None = None,
    called: str = "10.96.0.1:80",
    traffic: ServiceTraffic | None = None,
) -> Explanation:
    world = world_of(CLIENT, GATE, GATE_1, WEB, WEB_1, WEB_2, OTHER, OTHER_1)
    more = [traffic] if traffic is not None else []
    world = apply(world, [*LABELS, *more, *([Routes(WEB.key, rules)] if rules else [])])[0]
    return explain_call(world, find_call(world, "shop/client", called), http=http)


def onward(found: Explanation) -> list[tuple[str, str]]:
    return [(one.to, one.reason.partition(";")[0]) for one in found.paths[0].onward]


@pytest.mark.parametrize("called", ["10.96.0.1:80", "[fd30::1]:80"])
def test_subsets_have_their_shares(called: str) -> None:
    found = explained(rule(Forward((V1, V2))), called=called)
    web = "shop/web.shop.svc.cluster.local"
    to_v1, to_v2 = f"90 % to {web}, subset v1", f"10 % to {web}, subset v2"
    assert found.paths[0].reason.endswith(f"; VirtualService shop/web rule 'r': {to_v1}, {to_v2}")
    assert onward(found) == [("shop/web-1", to_v1), ("shop/web-2", to_v2)]
    assert "subset v2" in as_text(found)


def test_a_header_decides() -> None:
    jason = (Match(headers=(FieldMatch("end-user", TextMatch(TextKind.EXACT, "jason")),)),)
    rules = (Rule("jason", SOURCE, Forward((V2,)), jason), rule(Forward((V1,))))
    found = explained(*rules, http=HttpCall(headers=(("End-User", "jason"),)))
    assert [to for to, _ in onward(found)] == ["shop/web-2"]
    assert [to for to, _ in onward(explained(*rules))] == ["shop/web-1"]


def test_another_service_is_one_too() -> None:
    found = explained(rule(Forward((Destination(OTHER.key, 90),))))
    assert [to for to, _ in onward(found)] == ["shop/other-1"]


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ((rule(Forward((V1,)), "/other"),), "no rule of VirtualService shop/web is for it: 404"),
        ((rule(Redirect(302, authority="a.b")),), "redirected to http://a.b/ (302)"),
        ((rule(DirectResponse(418)),), "answered 418"),
        ((rule(Forward((BAD,))),), "answered 500: BackendNotFound"),
        ((Rule("r", SOURCE, DirectResponse(200), (NO_EXPRESSION,)),), "cannot be compiled"),
    ],
)
def test_what_goes_nowhere_says_so(rules: tuple[Rule, ...], why: str) -> None:
    found = explained(*rules)
    assert why in found.paths[0].reason
    assert found.paths[0].onward == ()


def test_what_else_becomes_of_it_is_said() -> None:
    fault = Fault(Delay(7, MILLION // 2), Abort(MILLION // 10, 500))
    more = {"fault": fault, "timeout_seconds": 3, "retry": ISTIO_RETRY, "mirrors": (Mirror(V2),)}
    reason = explained(rule(Forward((V1,)), **more)).paths[0].reason
    assert "50 % of them wait 7 s; 10 % of them are answered 500; after 3 s answered 504" in reason
    assert "tried again up to 2 times; 100 % of them are copied to shop/web" in reason
    grpc = Fault(abort=Abort(MILLION, grpc_status=14))
    assert "answered gRPC status 14" in explained(rule(Forward((V1,)), fault=grpc)).paths[0].reason


def test_a_destination_that_nobody_serves_is_refused() -> None:
    (path,) = explained(rule(Forward((Destination(ServiceName("shop", "nobody")),)))).paths[0].onward
    assert (path.allowed, path.reason) == (False, "shop/nobody is not known: 503")
    v9 = Destination(WEB.key, subset="v9", labels=(("version", "v9"),))
    (path,) = explained(rule(Forward((v9,)))).paths[0].onward
    assert not path.allowed
    assert "no healthy upstream" in path.reason


def test_without_routes_it_goes_to_each_endpoint() -> None:
    assert [one.to for one in explained().paths[0].onward] == ["shop/web-1", "shop/web-2"]
    other_port = Rule("r", SOURCE, DirectResponse(200), (Match(ports=(90,)),))
    assert [one.to for one in explained(other_port).paths[0].onward] == ["shop/web-1", "shop/web-2"]
