"""Questions and answers of envoy.service.auth.v3: every attribute that Envoy tells, every change it knows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.l7.extauthz.outcome import Denial, Failed, HeaderChange, How, Permit
from ztunnel.l7.extauthz.question import Party, Question
from ztunnel.l7.request import Request
from ztunnel.model.address import parse_endpoint
from ztunnel.xds.ext_authz import parse_answer, render_check
from ztunnel.xds.pb import ext_authz_pb2 as pb

CLIENT = Party(parse_endpoint("10.0.0.1:1234"), "spiffe://cluster.local/ns/a/sa/b")
SERVER = Party(parse_endpoint("[fd00::2]:80"), "spiffe://cluster.local/ns/w/sa/w")


def asked(request=None, as_bytes=False, **more):
    return pb.CheckRequest.FromString(render_check(Question(CLIENT, SERVER, request, **more), as_bytes))


def test_a_request_is_told_with_both_ends_and_all_headers():
    request = Request(
        b"POST",
        b"Web:80",
        b"/x?q=1",
        [(b"x-a", b"1"), (b"x-a", b"2"), (b"x-request-id", b"id"), (b"u", b"\xff")],
    )
    request.length = 7
    found = asked(request, version=2, time_ns=1_500_000_000).attributes
    for party, peer in ((CLIENT, found.source), (SERVER, found.destination)):
        at = peer.address.socket_address
        assert (at.address, at.port_value) == (str(party.endpoint.ip), party.endpoint.port)
        assert peer.principal == party.principal
    assert (found.request.time.seconds, found.request.time.nanos) == (1, 500_000_000)
    http = found.request.http
    assert (http.id, http.method, http.path, http.host, http.scheme, http.size, http.protocol) == (
        "id", "POST", "/x?q=1", "Web:80", "http", 7, "HTTP/2",
    )  # fmt: skip
    assert dict(http.headers) == {
        ":method": "POST", ":scheme": "http", ":authority": "Web:80", ":path": "/x?q=1",
        "x-a": "1,2", "x-request-id": "id", "u": "!",
    }  # fmt: skip
    assert (http.body, http.raw_body) == ("", b"")


def test_a_body_is_told_as_text_or_as_it_is():
    request = Request(b"POST", b"web", b"/", [(b"x-envoy-auth-partial-body", b"spoofed")])
    http = asked(request, body=b"a\xff", partial=True).attributes.request.http
    assert (http.body, http.raw_body, http.size) == ("a!", b"", -1)
    assert http.headers["x-envoy-auth-partial-body"] == "true"
    http = asked(request, as_bytes=True, body=b"a\xff").attributes.request.http
    assert (http.body, http.raw_body) == ("", b"a\xff")
    assert http.headers["x-envoy-auth-partial-body"] == "false"
    assert "x-envoy-auth-partial-body" not in asked(request).attributes.request.http.headers


def test_a_connection_is_told_without_a_request():
    found = asked().attributes
    assert found.source.principal == CLIENT.principal
    assert not found.request.HasField("http")


def option(key, value="v", append=None, action=0, raw=b""):
    made = pb.HeaderValueOption(header={"key": key, "value": value, "raw_value": raw}, append_action=action)
    if append is not None:
        made.append.value = append
    return made


def answer(code=0, **kinds):
    return parse_answer(pb.CheckResponse(status={"code": code}, **kinds).SerializeToString())


@pytest.mark.parametrize(
    ("one", "asked_for", "response"),
    [
        (option("X-A"), How.SET, How.APPEND),
        (option("x-a", append=False), How.SET, How.SET),
        (option("x-a", append=True), How.APPEND, How.APPEND),
        (option("x-a", append=True, action=2), How.APPEND, How.APPEND),
        (option("x-a", action=1), How.ADD_IF_ABSENT, How.ADD_IF_ABSENT),
        (option("x-a", action=2), How.SET, How.SET),
        (option("x-a", action=3), How.SET_IF_PRESENT, How.SET_IF_PRESENT),
        (option("x-a", action=77), How.SET, How.APPEND),
    ],
)
def test_headers_of_the_request_are_set_and_those_of_the_response_added_unless_it_is_said(
    one, asked_for, response
):
    found = answer(ok_response={"headers": [one], "response_headers_to_add": [one]})
    changes = [HeaderChange(b"x-a", b"v", how) for how in (asked_for, response)]
    assert found == Permit((changes[0],), (), (changes[1],))


def test_what_an_ok_says_is_all_read():
    found = answer(
        ok_response={
            "headers": [option("a", raw=b"\xfe")],
            "headers_to_remove": ["Authorization"],
            "query_parameters_to_set": [{"key": "k", "value": "v"}],
            "query_parameters_to_remove": ["r"],
        }
    )
    assert found == Permit((HeaderChange(b"a", b"\xfe"),), (b"authorization",), (), (("k", "v"),), ("r",))
    assert answer() == Permit()


def test_a_denial_has_status_headers_and_body():
    denied = {"status": {"code": 429}, "headers": [option("Retry-After", "9")], "body": "later"}
    assert answer(7, denied_response=denied) == Denial(429, ((b"retry-after", b"9"),), b"later")
    assert answer(7) == Denial(403)
    assert answer(16, denied_response={"body": "no"}) == Denial(403, (), b"no")
    assert answer(7, ok_response={"headers": [option("a")]}) == Denial(403)


def test_an_error_is_none_of_both():
    wanted = {"status": {"code": 503}, "body": "broken"}
    assert answer(error_response=wanted) == Permit()
    assert answer(13, error_response=wanted) == Failed(
        "the authorizer says that it failed", Denial(503, (), b"broken")
    )
    found = answer(13, error_response={})
    assert found == Failed("the authorizer says that it failed", Denial(0))


@pytest.mark.parametrize(
    "untrusted",
    [
        b"\xff\xff",
        pb.CheckResponse(ok_response={"headers": [option("a", "x\r\ny")]}).SerializeToString(),
        pb.CheckResponse(status={"code": 7}, denied_response={"status": {"code": 42}}).SerializeToString(),
    ],
)
def test_what_makes_no_sense_is_an_error(untrusted):
    assert isinstance(parse_answer(untrusted), Failed)


@given(st.binary(max_size=64))
def test_any_bytes_are_an_answer_or_an_error(untrusted):
    assert isinstance(parse_answer(untrusted), Permit | Denial | Failed)
