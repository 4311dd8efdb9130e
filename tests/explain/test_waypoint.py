"""What a waypoint makes of a request, and what becomes of it from there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.builders import policy as node_policy
from tests.builders import service, workload, world_of
from tests.l7.policy.test_authorization import policies
from ztunnel.explain.explanation import explain_call
from ztunnel.explain.names import find_call
from ztunnel.explain.path import Explanation, Way
from ztunnel.explain.text import as_text, as_values
from ztunnel.explain.waypoint import HttpCall
from ztunnel.model.mesh_defaults import MeshDefaults
from ztunnel.model.provider import ExtAuthz, ExtensionProvider, ServicePort, Speech
from ztunnel.model.service import AppProtocol, Waypoint
from ztunnel.model.workload import Workload

GATE = service("gate", "shop").at("10.96.0.9").port(15008, 15008)
WEB = replace(
    service("web", "shop").at("10.96.0.1", "fd30::1").port(80, 8080),
    waypoint=Waypoint(GATE.key, None),
    protocols=((80, AppProtocol.HTTP),),
)
CLIENT = workload("client", "shop").at("10.0.0.1", "fd00::1").on("n1").hbone()
GATE_1 = workload("gate-1", "shop").at("10.0.1.9", "fd00:1::9").on("n2").native().serves(GATE)
WEB_1 = workload("web-1", "shop").at("10.0.1.1", "fd00:1::1").on("n2").hbone().serves(WEB)
WEB_2 = workload("web-2", "shop").at("10.0.1.2", "fd00:1::2").on("n2").hbone().serves(WEB)
GET = "rules: [{to: [{operation: {methods: [GET], paths: ['/a*']}}]}]"


def explained(
    *items: object, http: HttpCall | None = None, called: str = "10.96.0.1:80", **specs
) -> Explanation:
    """A call of the client, where these are the policies of the service, p0, p1, ..."""
    found = policies(*specs.get("specs", ()))
    web = replace(specs.get("web", WEB), guards=(*found, *specs.get("guards", ())))
    world = world_of(CLIENT, GATE, GATE_1, WEB_1, WEB_2, web, *found.values(), *items)
    return explain_call(world, find_call(world, "shop/client", called), http=http)


def by(*specs: str, **more: Any) -> Explanation:
    return explained(specs=specs, **more)


@pytest.mark.parametrize("called", ["10.96.0.1:80", "[fd30::1]:80"])
def test_what_it_lets_through_goes_on_to_each_endpoint_as_the_waypoint(called: str) -> None:
    found = by(GET, http=HttpCall("GET", "/a"), called=called)
    (path,) = found.paths
    assert (path.way, path.to, path.allowed) == (Way.WAYPOINT, "shop/gate-1", True)
    assert path.reason == "GET /a: allowed by shop/p0"
    assert [(one.policy, one.action, one.decides) for one in path.tried] == [("shop/p0", "ALLOW", True)]
    assert [(one.way, one.to) for one in path.onward] == [
        (Way.HBONE, "shop/web-1"),
        (Way.HBONE, "shop/web-2"),
    ]
    assert found.verdict == "allowed: GET /a: allowed by shop/p0"


@pytest.mark.parametrize(
    ("specs", "http", "details", "why"),
    [
        ([GET], HttpCall("PUT", "/a"), "[none]", "rule 1: methods"),
        ([GET], HttpCall("GET", "/b"), "[none]", "rule 1: paths"),
        ([GET], None, "[none]", "rule 1: paths"),
        (
            ["{action: DENY, rules: [{when: [{key: 'request.headers[x-a]', values: [b]}]}]}"],
            HttpCall(headers=(("X-A", "b"),)),
            "[ns[shop]-policy[p0]-rule[0]]",
            "rule 1 matches",
        ),
    ],
)
def test_what_it_refuses_goes_nowhere(specs: list[str], http: HttpCall, details: str, why: str) -> None:
    found = by(*specs, http=http)
    (path,) = found.paths
    assert not found.allowed
    assert details in path.reason
    assert (path.tried[0].why, path.onward) == (why, ())


def test_a_path_is_judged_in_the_spelling_that_it_is_forwarded_in() -> None:
    assert by(GET, http=HttpCall("GET", "/b/%2e%2e/%61")).allowed
    with pytest.raises(ValueError, match="is no path"):
        by(GET, http=HttpCall("GET", "/%00"))
    merged = MeshDefaults(path_normalization="MERGE_SLASHES")
    assert not by(GET, http=HttpCall("GET", "//a")).allowed
    assert explained(merged, specs=[GET], http=HttpCall("GET", "//a")).allowed


def test_policies_at_the_destination_see_the_waypoint() -> None:
    client = node_policy("only", "shop").when(principals=["cluster.local/ns/shop/sa/client"])
    found = explained(client)
    assert not found.allowed
    assert found.verdict.startswith("refused: behind shop/gate-1, connection closed due to policy rejection")
    gate = node_policy("gate", "shop").when(principals=["cluster.local/ns/shop/sa/gate-1"])
    assert explained(client, gate).allowed


def test_an_endpoint_that_refuses_is_one_of_several() -> None:
    shut = node_policy("shut", "shop").deny().selecting().rule()
    web_2: Workload = WEB_2.selected_by("shop/shut")
    found = explained(shut, web_2)
    assert found.allowed
    assert [bool(one.refusal) for one in found.paths[0].onward] == [False, True]


def test_what_is_no_http_is_judged_by_what_it_is() -> None:
    rows = replace(WEB, protocols=((80, AppProtocol.TCP),))
    (path,) = by(GET, web=rows).paths
    assert (path.allowed, path.tried[0].why) == (False, "rule 1: needs HTTP, and this is none")
    assert path.reason.startswith("the connection: ")


def test_what_only_waypoints_know_is_said() -> None:
    found = explained(guards=("shop/p7",))
    assert (
        found.paths[0].reason
        == "the waypoint decides by shop/p7, which only waypoints and control planes know"
    )


def test_it_is_told_as_text_and_values() -> None:
    found = by(GET, "{action: AUDIT, rules: [{}]}", http=HttpCall("GET", "/a"))
    lines = as_text(found).splitlines()
    assert any(
        line.startswith("           allowed  shop/web-1 at 10.0.1.1:8080") or "shop/web-1" in line
        for line in lines
    )
    assert any(line.strip().startswith("AUDIT") for line in lines)
    (path,) = as_values(found)["paths"]
    assert [one["to"] for one in path["onward"]] == ["shop/web-1", "shop/web-2"]


def test_the_order_is_that_of_the_decision() -> None:
    denies = "{action: DENY, rules: [{to: [{operation: {methods: [PUT]}}]}]}"
    found = by(GET, denies, "DRY{action: DENY, rules: [{}]}", http=HttpCall("GET", "/a"))
    tried = [(one.policy, one.dry_run) for one in found.paths[0].tried]
    assert tried == [("shop/p1", False), ("shop/p0", False), ("shop/p2", True)]


CUSTOM = "{action: CUSTOM, provider: {name: opa}, rules: [{to: [{operation: {paths: [/a]}}]}]}"
OPA = service("opa", "auth").at("10.96.0.7").port(9191, 9191)


def asker(speech: Speech = Speech.GRPC, **more: Any) -> ExtensionProvider:
    return ExtensionProvider("opa", ExtAuthz(speech, ServicePort(OPA.hostname, 9191), **more))


@pytest.mark.parametrize(
    ("provider", "text"),
    [
        (asker(), "(auth/opa.auth.svc.cluster.local:9191, gRPC; an error refuses it)"),
        (
            asker(Speech.HTTP, fail_open=True),
            "(auth/opa.auth.svc.cluster.local:9191, HTTP; an error lets it through)",
        ),
    ],
)
def test_it_says_who_is_asked_and_what_follows(provider: ExtensionProvider, text: str) -> None:
    found = explained(provider, OPA, specs=(CUSTOM, GET), http=HttpCall("GET", "/a"))
    (path,) = found.paths
    assert path.allowed
    assert path.reason == f"GET /a: shop/p0 asks opa {text}; if that permits it: allowed by shop/p1"
    assert [(one.policy, one.decides) for one in path.tried] == [("shop/p0", True), ("shop/p1", True)]


def test_what_the_others_refuse_is_refused_whatever_is_answered() -> None:
    found = explained(asker(), OPA, specs=(CUSTOM, GET.replace("GET", "PUT")), http=HttpCall("GET", "/a"))
    assert not found.allowed
    assert "[none]" in found.paths[0].reason


@pytest.mark.parametrize(
    ("items", "protocol", "why"),
    [
        ((OPA,), AppProtocol.HTTP, "there is no provider of the name 'opa' (extensionProviders)"),
        (
            (asker(),),
            AppProtocol.HTTP,
            "the provider 'opa': there is no service opa.auth.svc.cluster.local:9191",
        ),
        (
            (asker(Speech.HTTP), OPA),
            AppProtocol.TCP,
            "the provider 'opa' asks over HTTP, and this is a connection without requests",
        ),
    ],
)
def test_it_says_why_nobody_is_asked(items: tuple[object, ...], protocol: AppProtocol, why: str) -> None:
    web = replace(WEB, protocols=((80, protocol),))
    found = explained(*items, specs=(CUSTOM,), web=web, http=HttpCall("GET", "/a"))
    (path,) = found.paths
    assert (path.allowed, path.reason.partition(": ")[2]) == (False, why)


@pytest.mark.parametrize(
    ("headers", "allowed"), [((), False), ((("X-Forwarded-Proto", "https"),), True)], ids=["plain", "gateway"]
)
def test_its_scheme_is_what_a_gateway_says(headers: tuple[tuple[str, str], ...], allowed: bool) -> None:
    only = "rules: [{when: [{key: 'request.headers[:scheme]', values: [https]}]}]"
    (path,) = by(only, http=HttpCall(headers=headers)).paths
    assert path.allowed is allowed
