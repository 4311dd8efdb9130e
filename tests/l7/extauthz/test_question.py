"""What an authorizer is asked over HTTP, and what its response means."""

from dataclasses import replace

import pytest

from ztunnel.l7.extauthz.outcome import Denial, Failed, HeaderChange, How, Permit
from ztunnel.l7.extauthz.question import Party, Question, http_answer, http_request, joined, matches
from ztunnel.l7.request import Request
from ztunnel.model.address import parse_endpoint
from ztunnel.model.http_policy import TextKind, TextMatch
from ztunnel.model.provider import BodyCheck, ExtAuthz, ServicePort, Speech

PROVIDER = ExtAuthz(Speech.HTTP, ServicePort("a.b", 80))
EXACT, PREFIX, SUFFIX = TextKind.EXACT, TextKind.PREFIX, TextKind.SUFFIX


def exact(*names):
    return tuple(TextMatch(EXACT, name) for name in names)


def asked(provider=PROVIDER, fields=(), body=None, partial=False, path=b"/x?q=1", method=b"POST"):
    request = Request(method, b"web:80", path, list(fields))
    ends = Party(parse_endpoint("10.0.0.1:1")), Party(parse_endpoint("10.0.0.2:80"))
    return http_request(provider, Question(*ends, request, body=body, partial=partial))


FIELDS = [
    (b"authorization", b"Bearer x"), (b"cookie", b"c"), (b"x-one", b"1"), (b"x-one", b"2"),
    (b"x-two", b"3"), (b"content-type", b"text/plain"), (b"content-length", b"9"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("includes", "expected"),
    [
        ((), [(b"authorization", b"Bearer x")]),
        (exact("cookie"), [(b"authorization", b"Bearer x"), (b"cookie", b"c")]),
        (
            (TextMatch(PREFIX, "x-"),),
            [(b"authorization", b"Bearer x"), (b"x-one", b"1,2"), (b"x-two", b"3")],
        ),
        ((TextMatch(SUFFIX, "-two"),), [(b"authorization", b"Bearer x"), (b"x-two", b"3")]),
        (exact("content-length", "transfer-encoding"), [(b"authorization", b"Bearer x")]),
    ],
)
def test_method_path_host_and_named_headers_are_told(includes, expected):
    made = asked(replace(PROVIDER, include_headers=includes), FIELDS)
    assert (made.method, made.authority, made.path) == (b"POST", b"web:80", b"/x?q=1")
    assert made.fields == [*expected, (b"content-length", b"0")]


def test_a_prefix_stands_before_the_path_and_headers_are_added():
    provider = replace(PROVIDER, path_prefix="/check", added_headers=(("x-static", "v"),))
    made = asked(provider)
    assert made.path == b"/check/x?q=1"
    assert made.fields == [(b"x-static", b"v"), (b"content-length", b"0")]


@pytest.mark.parametrize(("partial", "said"), [(False, b"false"), (True, b"true")])
def test_a_body_that_is_shown_has_its_own_length(partial, said):
    everything = (TextMatch(PREFIX),)
    provider = replace(PROVIDER, body=BodyCheck(3, True), include_headers=everything)
    spoofed = [(b"x-envoy-auth-partial-body", b"maybe")]
    made = asked(provider, [(b"content-length", b"99"), *spoofed], b"abc", partial)
    assert made.fields == [(b"x-envoy-auth-partial-body", said), (b"content-length", b"3")]
    assert made.length == 3


def test_headers_of_one_name_are_joined():
    assert joined([(b"a", b"1"), (b"b", b"2"), (b"a", b"")]) == {b"a": b"1,", b"b": b"2"}


@pytest.mark.parametrize(
    ("match", "names"),
    [
        (TextMatch(EXACT, "x-a"), {b"x-a"}),
        (TextMatch(PREFIX, "x-"), {b"x-a", b"x-b"}),
        (TextMatch(SUFFIX, "-b"), {b"x-b"}),
        (TextMatch(PREFIX), {b"x-a", b"x-b", b"other"}),
    ],
)
def test_names_are_meant_exactly_by_a_prefix_or_by_a_suffix(match, names):
    assert {name for name in (b"x-a", b"x-b", b"other") if matches(name, (match,))} == names


def response(status, *fields):
    return ((b":status", status), *fields)


SAID = ((b"x-user", b"me"), (b"x-team", b"net"), (b"set-cookie", b"a=b"), (b"location", b"/login"))


def test_200_lets_it_go_on_with_the_headers_that_are_named():
    provider = replace(
        PROVIDER, upstream_on_allow=exact("x-user"), downstream_on_allow=(TextMatch(PREFIX, "set-"),)
    )
    answer = http_answer(provider, response(b"200", *SAID), b"ignored")
    assert answer == Permit(
        (HeaderChange(b"x-user", b"me"),), (), (HeaderChange(b"set-cookie", b"a=b", How.APPEND),)
    )
    assert http_answer(PROVIDER, response(b"200", *SAID), b"") == Permit()


def test_an_authorizer_may_have_headers_removed():
    said = response(b"200", (b"x-envoy-auth-headers-to-remove", b" Authorization, ,cookie"))
    assert http_answer(PROVIDER, said, b"") == Permit(removed=(b"authorization", b"cookie"))


@pytest.mark.parametrize("status", [b"201", b"302", b"401", b"403", b"429"])
def test_any_other_status_is_the_clients(status):
    answer = http_answer(PROVIDER, response(status, *SAID), b"no")
    assert answer == Denial(int(status), SAID, b"no")
    named = replace(PROVIDER, downstream_on_deny=exact("x-team"))
    assert http_answer(named, response(status, *SAID), b"no") == Denial(
        int(status), ((b"x-team", b"net"), (b"location", b"/login")), b"no"
    )


@pytest.mark.parametrize("status", [b"500", b"503", b"599"])
def test_an_authorizer_that_fails_is_an_error(status):
    assert http_answer(PROVIDER, response(status), b"") == Failed(f"the authorizer answered {int(status)}")
