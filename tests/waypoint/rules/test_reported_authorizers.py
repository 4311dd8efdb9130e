"""What others reported of external authorizers (issues of Istio and of Envoy), as experiments."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from tests.hbone.conftest import contexts, lab
from tests.hbone.peers import Lab
from tests.l7.issuers import ISSUER, claims, jwk, jwks, token
from tests.waypoint.authorizers import ALLOW, ASK, GET, GRPC, HTTP, OK, Asking, GrpcAuthorizer
from ztunnel.model.http_policy import TextKind, TextMatch
from ztunnel.model.jwt import JwtPolicy, JwtRule
from ztunnel.model.provider import BodyCheck, ExtAuthz

__all__ = ["contexts", "lab"]


def exact(*names: str) -> tuple[TextMatch, ...]:
    return tuple(TextMatch(TextKind.EXACT, name) for name in names)


def values(sent: bytes, name: bytes) -> list[bytes]:
    lines = sent.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return [value for key, _, value in (line.partition(b": ") for line in lines) if key.lower() == name]


def test_an_authorizer_sees_what_the_token_says_and_never_what_a_client_says_in_its_place(lab: Lab) -> None:
    """istio/istio#35941: `outputPayloadToHeader` beside CUSTOM."""
    rule = JwtRule(ISSUER, keys=jwks(jwk("EdDSA")), payload_header="my-data")
    provider = replace(HTTP, include_headers=exact("my-data"))
    mesh = Asking(lab, provider, JwtPolicy("jwt", "shop", (rule,)), jwt=("shop/jwt",))
    good = token(claims(exp=int(time.time()) + 600), "EdDSA")
    mesh.send(GET.replace(b"\r\n\r\n", b"\r\nMy-Data: forged\r\nAuthorization: Bearer " + good + b"\r\n\r\n"))
    _, asked = mesh.question()
    assert values(bytes(asked.got), b"my-data") == [good.split(b".")[1]]


def test_without_a_token_an_authorizer_is_shown_no_payload(lab: Lab) -> None:
    rule = JwtRule(ISSUER, keys=jwks(jwk("EdDSA")), payload_header="my-data")
    provider = replace(HTTP, include_headers=exact("my-data"))
    mesh = Asking(lab, provider, JwtPolicy("jwt", "shop", (rule,)), jwt=("shop/jwt",))
    mesh.send(GET.replace(b"\r\n\r\n", b"\r\nMy-Data: forged\r\n\r\n"))
    _, asked = mesh.question()
    assert values(bytes(asked.got), b"my-data") == []


def test_each_value_that_an_authorizer_gives_goes_on(lab: Lab) -> None:
    """envoyproxy/envoy#32420, #11156: over HTTP Envoy keeps the last one only."""
    mesh = Asking(lab, replace(HTTP, upstream_on_allow=exact("x-remote-group")))
    mesh.send(GET.replace(b"\r\n\r\n", b"\r\nX-Remote-Group: system:masters\r\n\r\n"))
    tunnel, _ = mesh.question()
    groups = b"X-Remote-Group: dogs\r\nX-Remote-Group: dachshunds\r\nContent"
    tunnel.write(OK.replace(b"Content", groups))
    assert values(mesh.passed(), b"x-remote-group") == [b"dogs", b"dachshunds"]


@pytest.mark.parametrize("how", [{}, {"append_action": 0}, {"append": {"value": True}}])
def test_each_value_that_an_authorizer_of_grpc_gives_goes_on(lab: Lab, how: dict[str, object]) -> None:
    """envoyproxy/envoy#40255, #42857, #39359: the last one only, or all in one line with commas."""
    mesh = Asking(lab, GRPC)
    mesh.send()
    it = GrpcAuthorizer(mesh)
    it.asked()
    headers = [{"header": {"key": "x-group", "value": value}, **how} for value in ("dogs", "dachshunds")]
    it.answer(ok_response={"headers": headers})
    assert values(mesh.passed(), b"x-group") == [b"dogs", b"dachshunds"]


@pytest.mark.parametrize("provider", [HTTP, GRPC])
def test_an_authorizer_is_shown_every_value_that_a_client_sends(lab: Lab, provider: ExtAuthz) -> None:
    """CVE-2021-32777: of several values Envoy showed the last one."""
    mesh = Asking(lab, replace(provider, include_headers=exact("x-role")) if provider is HTTP else provider)
    mesh.send(GET.replace(b"\r\n\r\n", b"\r\nX-Role: admin\r\nX-Role: guest\r\n\r\n"))
    if provider is GRPC:
        assert GrpcAuthorizer(mesh).asked().request.http.headers["x-role"] == "admin,guest"
    else:
        assert values(bytes(mesh.question()[1].got), b"x-role") == [b"admin,guest"]


@pytest.mark.parametrize("provider", [HTTP, GRPC])
def test_an_authorizer_may_put_another_token_in_the_place_of_the_clients(
    lab: Lab, provider: ExtAuthz
) -> None:
    """istio/istio#47797."""
    mesh = Asking(lab, replace(provider, upstream_on_allow=exact("authorization")))
    mesh.send(GET.replace(b"\r\n\r\n", b"\r\nAuthorization: Basic client\r\n\r\n"))
    if provider is GRPC:
        it = GrpcAuthorizer(mesh)
        it.asked()
        it.answer(ok_response={"headers": [{"header": {"key": "Authorization", "value": "Bearer inner"}}]})
    else:
        mesh.question()[0].write(OK.replace(b"Content", b"Authorization: Bearer inner\r\nContent"))
    assert values(mesh.passed(), b"authorization") == [b"Bearer inner"]


def test_a_body_that_comes_bit_by_bit_is_asked_about_once(lab: Lab) -> None:
    """envoyproxy/envoy#13260: a question for each part of the body."""
    mesh = Asking(lab, replace(GRPC, body=BodyCheck(10)), policies=(ASK, ALLOW))
    mesh.send(b"POST /x HTTP/1.1\r\nHost: web\r\nContent-Length: 10\r\n\r\n")
    for octet in b"0123456789":
        assert mesh.tunnels.asked == []
        mesh.sender.write(bytes([octet]))
        lab.go()
    it = GrpcAuthorizer(mesh)
    assert it.asked().request.http.body == "0123456789"
    it.answer(ok_response={})
    assert mesh.passed().startswith(b"POST /x HTTP/1.1\r\n")
    assert mesh.counted == [("asks", "allowed")]
    assert len(mesh.tunnels.asked) == 2
