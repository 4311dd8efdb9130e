"""A request waits for an external authorizer, and what that says is done; so is what it does not say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.hbone.conftest import contexts, lab
from tests.hbone.peers import Lab
from tests.waypoint.authorizers import (
    ALLOW,
    ASK,
    AUTH,
    DENIES,
    GET,
    GRPC,
    HTTP,
    OK,
    Asking,
    GrpcAuthorizer,
)
from tests.waypoint.mesh import CALLER, ME, SERVICE
from tests.waypoint.tls_server import Authority, TlsServer
from ztunnel.errors import Unreachable
from ztunnel.model.http_policy import Attribute, HttpAction, HttpPolicy, Term, TextKind, TextMatch
from ztunnel.model.provider import BodyCheck, ExtAuthz, ExtensionProvider, Prometheus, ServicePort
from ztunnel.model.route import Routes, RouteSource, Rule
from ztunnel.model.route_action import Destination, Forward
from ztunnel.model.route_match import FieldMatch, Match
from ztunnel.model.route_match import TextKind as RouteKind
from ztunnel.model.route_match import TextMatch as RouteText
from ztunnel.model.service_traffic import ClientTraffic, ServiceTraffic
from ztunnel.model.traffic import ClientTls, PortTraffic, TlsMode, Traffic
from ztunnel.state.delta import apply
from ztunnel.waypoint.rules.checking import MOST_HELD

__all__ = ["contexts", "lab"]
PASSES = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: own=1\r\n\r\nhi"


def exact(*names: str) -> tuple[TextMatch, ...]:
    return tuple(TextMatch(TextKind.EXACT, name) for name in names)


def with_fields(*lines: bytes) -> bytes:
    return GET[:-2] + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def term(attribute: Attribute, text: str, *argument: str) -> HttpPolicy:
    one = Term(attribute, (TextMatch(TextKind.EXACT, text),), (), argument)
    return HttpPolicy("more", "shop", HttpAction.ALLOW, ((((one,),),),))


def test_what_an_authorizer_permits_goes_on_with_the_headers_that_it_sets(lab: Lab) -> None:
    provider = replace(
        HTTP, upstream_on_allow=exact("x-user"), downstream_on_allow=exact("set-cookie"), path_prefix="/check"
    )
    mesh = Asking(lab, provider)
    heard = mesh.send(
        GET.replace(b"\r\n\r\n", b"\r\nAuthorization: me\r\nX-User: forged\r\nX-Other: o\r\n\r\n")
    )
    tunnel, asked = mesh.question()
    head = bytes(asked.got)
    assert head.startswith(b"GET /check/x HTTP/1.1\r\nhost: web\r\n")
    assert b"authorization: me\r\n" in head
    assert b"content-length: 0\r\n" in head
    assert b"x-other" not in head
    assert len(mesh.tunnels.asked) == 1
    tunnel.write(OK.replace(b"Content", b"X-User: me\r\nX-Else: e\r\nSet-Cookie: new=1\r\nContent"))
    server, got = mesh.serve(2)
    lab.go(until=lambda: b"\r\n\r\n" in got.got)
    sent = bytes(got.got)
    assert b"x-user: me\r\n" in sent
    assert b"forged" not in sent
    assert b"x-else" not in sent
    assert b"authorization: me" in sent
    server.write(PASSES)
    answer = mesh.answered(heard, b"hi")
    assert b"set-cookie: own=1\r\n" in answer  # as with Envoy, nothing of the server's is replaced
    assert b"set-cookie: new=1\r\n" in answer
    assert '"GET /x HTTP/1.1" 200 - via_upstream' in mesh.lines[0]
    assert mesh.counted == [("asks", "allowed")]
    assert not mesh.parts.checks.live


def test_what_an_authorizer_denies_is_answered_as_it_says(lab: Lab) -> None:
    mesh = Asking(lab, HTTP)
    heard = mesh.send()
    tunnel, _ = mesh.question()
    tunnel.write(DENIES)
    answer = mesh.answered(heard, b"no")
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"x-why: you\r\n" in answer
    assert b"server: istio-envoy\r\n" in answer
    assert b"server: asks" not in answer
    assert " 401 UAEX ext_authz_denied " in mesh.lines[0]
    assert len(mesh.tunnels.asked) == 1
    assert mesh.counted == [("asks", "denied")]
    assert dict(mesh.metrics._denials.samples()) == {("waypoint", "shop/ask"): 1}
    # The connection is the client's to use again, and so is the authorizer's.
    mesh.sender.write(GET)
    lab.go(until=lambda: mesh.parts.checks.live)
    tunnel.write(OK)
    mesh.passed()


@pytest.mark.parametrize(("open_", "status"), [(False, 403), (False, 503), (True, 403)])
@pytest.mark.parametrize(
    "fault", ["500", "closes", "refuses", "says nothing", "talks without end", "garbage"]
)
def test_an_error_refuses_or_lets_through_as_the_provider_says(
    lab: Lab, open_: bool, status: int, fault: str
) -> None:
    mesh = Asking(lab, replace(HTTP, fail_open=open_, error_status=status, timeout_seconds=0.5))
    if fault == "refuses":
        mesh.tunnels.refuses["10.0.0.9"] = Unreachable("nobody is there")
    heard = mesh.send(with_fields(b"X-Envoy-Auth-Failure-Mode-Allowed: forged"))
    asked = {"refuses": 0, "closes": 2, "garbage": 2}.get(fault, 1)  # what was lost is asked once more
    for count in range(1, asked + 1):
        lab.clock.move(0.1)
        tunnel, _ = mesh.question(count)
        if fault == "500":
            tunnel.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops")
        elif fault == "closes":
            tunnel.finish()
            lab.go()
        elif fault == "garbage":
            tunnel.write(b"\x00\x01 what\r\n\r\n")
            lab.go()
        elif fault == "talks without end":
            tunnel.write(b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(40):
                tunnel.write(b"4000\r\n" + bytes(0x4000) + b"\r\n")
        else:
            lab.clock.move(1)
    if fault == "refuses":
        lab.go()
        lab.clock.move(0.1)
    if open_:
        sent = mesh.passed(asked + 1)
        assert b"x-envoy-auth-failure-mode-allowed: true\r\n" in sent
        assert b"forged" not in sent
        assert mesh.counted == [("asks", "failure_mode_allowed")]
    else:
        lab.go(until=lambda: mesh.lines and heard.got)
        assert heard.got.startswith(b"HTTP/1.1 %d " % status)
        assert f" {status} UAEX ext_authz_error " in mesh.lines[0]
        assert mesh.counted == [("asks", "error")]
    assert not mesh.parts.checks.live


@pytest.mark.parametrize(
    ("provider", "reason"),
    [
        (None, "there is no provider of the name 'asks' (extensionProviders)"),
        (Prometheus(), "the provider 'asks' is no authorizer"),
        (
            replace(HTTP, service=ServicePort("nobody", 80)),
            "the provider 'asks': there is no service nobody:80",
        ),
        (
            replace(HTTP, service=ServicePort(HTTP.service.hostname, 81), fail_open=True),
            "the provider 'asks': auth/asks.auth.svc.cluster.local has no port 81",
        ),
        (
            replace(HTTP, service=replace(HTTP.service, namespace="other")),
            "the provider 'asks': there is no service other/asks.auth.svc.cluster.local:8000",
        ),
    ],
)
def test_what_cannot_be_asked_about_is_refused(lab: Lab, provider, reason: str) -> None:
    mesh = Asking(lab, HTTP)
    item = [ExtensionProvider("asks", provider)] if provider is not None else []
    gone = {ExtensionProvider: ["asks"]} if provider is None else {}
    world, change = apply(mesh.hold.world, item, removed_http=gone)
    mesh.hold.publish(world, change)
    heard = mesh.send()
    mesh.answered(heard, b"RBAC: access denied")
    assert heard.got.startswith(b"HTTP/1.1 403 ")
    assert " 403 UAEX rbac_access_denied_matched_policy[ns[shop]-policy[ask]-rule[0]] " in mesh.lines[0]
    assert reason in mesh.lines[0]
    assert not mesh.tunnels.asked
    assert mesh.counted == [("asks", "unknown")]


def test_rules_that_do_not_match_ask_nobody(lab: Lab) -> None:
    ask = replace(ASK, rules=term(Attribute.PATH, "/admin").rules)
    mesh = Asking(lab, HTTP, policies=(ask, ALLOW))
    mesh.send()
    mesh.passed(1)
    assert mesh.counted == []


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [
        (ALLOW, True),
        (HttpPolicy("more", "shop", HttpAction.DENY, ((),)), False),
        (term(Attribute.PATH, "/other"), False),
        (term(Attribute.HEADER, "me", "x-user"), True),
    ],
)
def test_the_other_policies_decide_after_it_about_the_request_as_it_is_then(
    lab: Lab, policy: HttpPolicy, allowed: bool
) -> None:
    mesh = Asking(lab, replace(HTTP, upstream_on_allow=exact("x-user")), policies=(ASK, policy))
    heard = mesh.send()
    tunnel, _ = mesh.question()
    tunnel.write(OK.replace(b"Content", b"X-User: me\r\nContent"))
    if allowed:
        mesh.passed()
        return
    mesh.answered(heard, b"RBAC: access denied")
    assert mesh.counted == [("asks", "allowed")]


@pytest.mark.parametrize("clear", [False, True])
def test_headers_of_the_answer_change_the_route_only_where_that_is_said(lab: Lab, clear: bool) -> None:
    provider = replace(HTTP, upstream_on_allow=exact("x-user"), clear_route_cache=clear)
    mesh = Asking(lab, provider)
    header = FieldMatch("x-user", RouteText(RouteKind.EXACT, "me"))
    forward = Forward((Destination(SERVICE.key),))
    source = RouteSource("VirtualService", "shop", "web")
    rules = (
        Rule("by-user", source, forward, (Match(headers=(header,)),)),
        Rule("others", source, forward, ()),
    )
    world, change = apply(mesh.hold.world, [Routes(SERVICE.key, rules)])
    mesh.hold.publish(world, change)
    heard = mesh.send()
    tunnel, _ = mesh.question()
    tunnel.write(OK.replace(b"Content", b"X-User: me\r\nContent"))
    server, got = mesh.serve(2)
    lab.go(until=lambda: b"\r\n\r\n" in got.got)
    assert b"x-user: me\r\n" in got.got
    server.write(PASSES)
    mesh.answered(heard, b"hi")
    assert ("by-user" if clear else "others") in mesh.lines[0]
    assert ("others" if clear else "by-user") not in mesh.lines[0]


POST = b"POST /x HTTP/1.1\r\nHost: web\r\nContent-Length: 10\r\n\r\n"


def test_a_body_is_held_until_it_is_whole_and_shown(lab: Lab) -> None:
    mesh = Asking(lab, replace(HTTP, body=BodyCheck(10)))
    mesh.send(POST + b"01234")
    lab.go()
    assert not mesh.tunnels.asked
    mesh.sender.write(b"56789")
    tunnel, asked = mesh.question()
    lab.go(until=lambda: asked.got.endswith(b"\r\n\r\n0123456789"))
    assert b"content-length: 10\r\n" in asked.got
    assert b"x-envoy-auth-partial-body: false\r\n" in asked.got
    tunnel.write(OK)
    _, got = mesh.serve(2)
    lab.go(until=lambda: got.got.endswith(b"\r\n\r\n0123456789"))


def test_of_a_long_body_its_begin_is_shown_and_all_of_it_is_sent(lab: Lab) -> None:
    mesh = Asking(lab, replace(HTTP, body=BodyCheck(4, partial=True)))
    mesh.send(POST + b"0123456")
    tunnel, asked = mesh.question()
    lab.go(until=lambda: asked.got.endswith(b"\r\n\r\n0123"))
    assert b"x-envoy-auth-partial-body: true\r\n" in asked.got
    mesh.sender.write(b"789")
    lab.go()
    tunnel.write(OK)
    _, got = mesh.serve(2)
    lab.go(until=lambda: got.got.endswith(b"\r\n\r\n0123456789"))


def test_a_body_that_is_too_long_is_refused_and_nobody_is_asked(lab: Lab) -> None:
    mesh = Asking(lab, replace(HTTP, body=BodyCheck(9)))
    heard = mesh.send(POST + b"0123456789")
    mesh.answered(heard, b"Payload Too Large")
    assert heard.got.startswith(b"HTTP/1.1 413 ")
    assert " 413 - request_payload_too_large " in mesh.lines[0]
    assert not mesh.tunnels.asked


def test_a_body_that_is_longer_than_any_window_is_shown(lab: Lab) -> None:
    size = 3 << 20
    mesh = Asking(lab, replace(HTTP, body=BodyCheck(size)))
    mesh.send(POST.replace(b"10", b"%d" % size))
    for _ in range(size >> 16):
        mesh.sender.write(bytes(1 << 16))
        lab.go()
    tunnel, asked = mesh.question()
    lab.go(until=lambda: len(asked.got) > size)
    tunnel.write(OK)
    _, got = mesh.serve(2)
    lab.go(until=lambda: len(got.got) > size)


def test_bodies_of_all_requests_that_are_held_have_a_bound(lab: Lab) -> None:
    mesh = Asking(lab, replace(HTTP, body=BodyCheck(10)))
    mesh.parts.checks.held_bytes = MOST_HELD - 9
    heard = mesh.send(POST + b"0123456789")
    mesh.answered(heard, b"overflow")
    assert heard.got.startswith(b"HTTP/1.1 503 ")
    assert " 503 UO " in mesh.lines[0]
    assert mesh.parts.checks.held_bytes == MOST_HELD - 9
    mesh.parts.checks.held_bytes = 0
    heard = mesh.send(POST + b"0123456789")
    tunnel, _ = mesh.question()
    assert mesh.parts.checks.held_bytes == 10
    tunnel.write(OK)
    server, got = mesh.serve(2)
    lab.go(until=lambda: got.got.endswith(b"0123456789"))
    server.write(PASSES)
    mesh.answered(heard, b"hi")
    assert mesh.parts.checks.held_bytes == 0
    mesh.send(POST + b"01234")
    lab.go(until=lambda: mesh.parts.checks.held_bytes == 5)
    mesh.sender.abort(Unreachable("it leaves"))
    lab.go(until=lambda: mesh.parts.checks.held_bytes == 0)


def test_of_a_request_without_a_body_none_is_shown(lab: Lab) -> None:
    mesh = Asking(lab, replace(HTTP, body=BodyCheck(9)))
    mesh.send()
    tunnel, asked = mesh.question()
    assert b"x-envoy-auth-partial-body" not in asked.got
    tunnel.write(OK)
    mesh.passed()


def test_a_request_that_wants_another_protocol_has_no_body_to_show(lab: Lab) -> None:
    mesh = Asking(lab, replace(HTTP, body=BodyCheck(9)))
    mesh.send(with_fields(b"Connection: Upgrade", b"Upgrade: websocket"))
    tunnel, asked = mesh.question()
    assert b"upgrade" not in asked.got.lower()
    tunnel.write(OK)
    assert b"upgrade: websocket" in mesh.passed()


def test_a_client_that_leaves_is_not_asked_about_any_more(lab: Lab) -> None:
    mesh = Asking(lab, HTTP)
    mesh.send()
    _, asked = mesh.question()
    mesh.sender.abort(Unreachable("it leaves"))
    lab.go(until=lambda: mesh.lines and not mesh.parts.checks.live)
    assert " 0 DC " in mesh.lines[0]
    lab.go(until=lambda: asked.words)
    assert mesh.counted == []


def test_what_goes_on_is_not_asked_about_again(lab: Lab) -> None:
    mesh = Asking(lab, HTTP)
    heard = mesh.send()
    tunnel, _ = mesh.question()
    tunnel.write(OK)
    server, got = mesh.serve(2)
    lab.go(until=lambda: b"\r\n\r\n" in got.got)
    world, change = apply(
        mesh.hold.world, [replace(ASK, rules=((), ())), ExtensionProvider("asks", Prometheus())]
    )
    mesh.hold.publish(world, change)
    mesh.parts.rejudge()
    server.write(PASSES)
    mesh.answered(heard, b"hi")
    assert " 200 - via_upstream " in mesh.lines[0]


def test_what_waits_is_judged_by_the_policies_of_when_it_is_answered(lab: Lab) -> None:
    mesh = Asking(lab, HTTP)
    heard = mesh.send()
    tunnel, _ = mesh.question()
    world, change = apply(mesh.hold.world, [HttpPolicy("more", "shop", HttpAction.DENY, ((),))])
    mesh.hold.publish(world, change)
    mesh.parts.rejudge()
    assert not heard.got
    tunnel.write(OK)
    mesh.answered(heard, b"RBAC: access denied")


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_an_authorizer_that_closes_an_idle_connection_fails_nobody(lab: Lab, method: bytes) -> None:
    """Node's servers do so after five seconds: a question on its way then would be a 403 for nothing."""
    mesh = Asking(lab, HTTP)
    mesh.send()
    first, _ = mesh.question()
    first.write(OK)
    mesh.passed()
    other, _ = mesh.open("10.1.0.1:80")
    other.write(method + GET[3:-2] + b"Content-Length: 0\r\n\r\n")
    lab.go(until=lambda: mesh.parts.checks.live)
    first.finish()
    lab.go()
    lab.clock.move(0.1)
    again, asked = mesh.question(3)
    assert asked.got.startswith(method)
    again.write(OK)
    lab.go(until=lambda: len(mesh.counted) == 2)
    assert mesh.counted == [("asks", "allowed")] * 2


def test_every_header_of_a_denial_is_told(lab: Lab) -> None:
    mesh = Asking(lab, HTTP)
    heard = mesh.send()
    tunnel, _ = mesh.question()
    cookies = b"set-cookie: a=1\r\nset-cookie: b=2\r\nlocation: /login\r\n"
    tunnel.write(b"HTTP/1.1 302 Found\r\nContent-Length: 2\r\n" + cookies + b"\r\nno")
    answer = mesh.answered(heard, b"no")
    assert answer.startswith(b"HTTP/1.1 302 ")
    assert all(line in answer for line in cookies.split(b"\r\n"))


def test_what_no_rule_is_about_is_not_held(lab: Lab) -> None:
    ask = replace(ASK, rules=term(Attribute.PATH, "/admin").rules)
    mesh = Asking(lab, replace(HTTP, body=BodyCheck(10)), policies=(ask, ALLOW))
    mesh.send(POST + b"01234")
    _, got = mesh.serve(1)
    lab.go(until=lambda: got.got.endswith(b"01234"))


def test_questions_to_one_authorizer_are_bounded(lab: Lab) -> None:
    mesh = Asking(lab, HTTP)
    mesh.parts.checks.live.taken["asks"] = 1024
    heard = mesh.send()
    lab.go(until=lambda: mesh.lines and heard.got)
    assert heard.got.startswith(b"HTTP/1.1 403 ")
    assert "too many questions to this authorizer are under way" in mesh.lines[0]
    assert mesh.parts.checks.live.taken == {"asks": 1024}


# gRPC


def test_an_authorizer_of_grpc_is_told_who_asks_for_what(lab: Lab) -> None:
    mesh = Asking(lab, replace(GRPC, body=BodyCheck(10, as_bytes=True)))
    heard = mesh.send(POST.replace(b"Host", b"X-A: 1\r\nHost") + b"0123456789")
    it = GrpcAuthorizer(mesh)
    asked = it.asked()
    assert it.fields[b":path"] == b"/envoy.service.auth.v3.Authorization/Check"
    assert (it.fields[b"content-type"], it.fields[b"grpc-timeout"]) == (b"application/grpc", b"5000m")
    assert asked.source.principal == str(CALLER.identity)
    assert asked.source.address.socket_address.address == "10.0.0.2"
    assert asked.destination.principal == str(ME.identity)
    assert asked.destination.address.socket_address.port_value == 80
    http = asked.request.http
    assert (http.method, http.path, http.host, http.raw_body) == ("POST", "/x", "web", b"0123456789")
    assert http.headers["x-a"] == "1"
    assert http.protocol == "HTTP/1.1"
    value = {"header": {"key": "X-User", "value": "me"}}
    cookie = {"header": {"key": "set-cookie", "value": "new=1"}, "append": {"value": True}}
    it.answer(
        ok_response={"headers": [value], "headers_to_remove": ["x-a"], "response_headers_to_add": [cookie]}
    )
    server, got = mesh.serve(2)
    lab.go(until=lambda: got.got.endswith(b"0123456789"))
    assert b"x-user: me\r\n" in got.got
    assert b"x-a" not in got.got
    server.write(PASSES)
    answer = mesh.answered(heard, b"hi")
    assert b"set-cookie: own=1\r\n" in answer
    assert b"set-cookie: new=1\r\n" in answer


def test_a_denial_of_grpc_is_the_clients_answer(lab: Lab) -> None:
    mesh = Asking(lab, GRPC)
    heard = mesh.send()
    it = GrpcAuthorizer(mesh)
    it.asked()
    header = {"header": {"key": "x-why", "value": "you"}}
    it.answer(7, denied_response={"status": {"code": 429}, "headers": [header], "body": "later"})
    answer = mesh.answered(heard, b"later")
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"x-why: you\r\n" in answer
    assert " 429 UAEX ext_authz_denied " in mesh.lines[0]


@pytest.mark.parametrize(
    ("message", "status", "http"),
    [
        (None, b"14", b"200"),
        (None, b"0", b"200"),
        (b"\x00\x00\x00\x00\x00", b"2", b"200"),
        (b"\x00\x00\x00\x00\x09", b"0", b"200"),
        (b"\x01\x00\x00\x00\x00", b"0", b"200"),
        (b"\x00\x00\x00\x00\x02\xff\xff", b"0", b"200"),
        (b"\x00\x00\x00\x00\x00" * 2, b"0", b"200"),
        (b"\x00\x00\x00\x00\x00", b"0", b"404"),
    ],
)
def test_what_is_no_answer_of_grpc_is_an_error(lab: Lab, message, status: bytes, http: bytes) -> None:
    mesh = Asking(lab, replace(GRPC, error_status=500))
    heard = mesh.send()
    it = GrpcAuthorizer(mesh)
    it.asked()
    it.say(message, status, http)
    lab.go(until=lambda: mesh.lines and heard.got)
    assert heard.got.startswith(b"HTTP/1.1 500 ")
    assert " 500 UAEX ext_authz_error " in mesh.lines[0]
    assert mesh.counted == [("asks", "error")]


def test_a_question_that_takes_too_long_is_an_error_and_is_taken_back(lab: Lab) -> None:
    mesh = Asking(lab, replace(GRPC, timeout_seconds=0.05))
    mesh.send()
    it = GrpcAuthorizer(mesh)
    it.asked()
    lab.clock.move(0.1)
    lab.go(until=lambda: mesh.lines)
    assert " 403 UAEX ext_authz_error " in mesh.lines[0]
    assert "upstream_response_timeout" in mesh.lines[0]
    lab.go(until=lambda: it.pump() and it.reset)


# Connections without requests


def test_a_connection_that_is_no_http_waits_for_its_authorizer(lab: Lab) -> None:
    mesh = Asking(lab, GRPC)
    _, answers = mesh.ask("10.1.0.1:5432")
    it = GrpcAuthorizer(mesh)
    asked = it.asked()
    assert not asked.request.HasField("http")
    assert asked.source.principal == str(CALLER.identity)
    assert asked.destination.address.socket_address.port_value == 5432
    assert answers.log == []
    it.answer()
    mesh.serve(2)
    lab.go(until=lambda: answers.log)
    assert answers.log == ["established"]


@pytest.mark.parametrize(("code", "details"), [(7, "ext_authz_denied"), (-1, "ext_authz_error")])
def test_a_connection_that_is_denied_or_of_which_nothing_is_said_is_refused(
    lab: Lab, code: int, details: str
) -> None:
    mesh = Asking(lab, GRPC)
    _, answers = mesh.ask("10.1.0.1:5432")
    it = GrpcAuthorizer(mesh)
    it.asked()
    if code < 0:
        it.say(None, b"14")
    else:
        it.answer(code)
    lab.go(until=lambda: answers.log and mesh.lines)
    assert answers.log == [401]
    assert details in mesh.lines[0]
    assert len(mesh.tunnels.asked) == 1


def test_an_authorizer_over_http_cannot_be_asked_about_a_connection(lab: Lab) -> None:
    mesh = Asking(lab, replace(HTTP, fail_open=True))
    _, answers = mesh.ask("10.1.0.1:5432")
    lab.go(until=lambda: answers.log and mesh.lines)
    assert answers.log == [401]
    assert "asks over HTTP" in mesh.lines[0]


def test_a_connection_that_waits_ends_when_a_policy_refuses_it_now(lab: Lab) -> None:
    mesh = Asking(lab, GRPC)
    mesh.ask("10.1.0.1:5432")
    it = GrpcAuthorizer(mesh)
    it.asked()
    world, change = apply(mesh.hold.world, [HttpPolicy("more", "shop", HttpAction.DENY, ((),))])
    mesh.hold.publish(world, change)
    mesh.parts.rejudge()
    lab.go(until=lambda: mesh.lines and it.pump() and it.reset)
    assert not mesh.parts.checks.live


def test_a_connection_whose_client_has_gone_is_not_asked_about_any_more(lab: Lab) -> None:
    mesh = Asking(lab, GRPC)
    tunnel, _ = mesh.ask("10.1.0.1:5432")
    it = GrpcAuthorizer(mesh)
    it.asked()
    mesh.parts.expire()
    assert mesh.parts.checks.live
    tunnel.abort(Unreachable("it leaves"))
    lab.go()
    mesh.parts.expire()
    lab.go(until=lambda: it.pump() and it.reset)
    assert not mesh.parts.checks.live
    assert not mesh.parts.guarded
    assert "the client has gone" in mesh.lines[0]


@pytest.mark.parametrize("provider", [HTTP, GRPC])
def test_an_authorizer_is_asked_by_the_tls_of_its_destination_rule(
    lab: Lab, tmp_path: Path, provider: ExtAuthz
) -> None:
    authority = Authority(tmp_path)
    alpn = "h2" if provider is GRPC else "http/1.1"
    server = TlsServer(authority.issue("asks", "asks.example"), alpn=alpn)
    tls = ClientTls(TlsMode.SIMPLE, roots=authority.roots, sni="asks.example")
    rule = ServiceTraffic(AUTH, (ClientTraffic("", PortTraffic(Traffic(tls=tls))),))
    mesh = Asking(lab, provider, rule)
    mesh.send()
    tunnel, heard = mesh.serve()

    def asked() -> bool:
        got, heard.got = bytes(heard.got), bytearray()
        if got and (said := server.take(got)):
            tunnel.write(said)
        return b"x HTTP/1.1\r\n" in server.got or server.got.startswith(b"PRI * HTTP/2.0")

    lab.go(until=asked)
    assert server.asked_for == "asks.example"
    mesh.servers.close()
