"""What a VirtualService's rules do is read into the router's actions."""

import pytest

from tests.state.reading import read
from ztunnel.model.route_action import (
    DirectResponse,
    PathEdit,
    PathEditKind,
    Redirect,
    RedirectPort,
    Rewrite,
)
from ztunnel.model.route_match import TextKind, TextMatch
from ztunnel.model.route_policy import Abort, Cors, Delay, Fault
from ztunnel.state.virtual_action import (
    read_cors,
    read_direct_response,
    read_fault,
    read_redirect,
    read_rewrite,
    read_whole_share,
)

FULL = PathEditKind.FULL


@pytest.mark.parametrize(
    ("reader", "text", "expected"),
    [
        (read_redirect, "{uri: /v1/x, authority: new.b}",
         Redirect(301, authority="new.b", path=PathEdit(FULL, "/v1/x"))),
        (read_redirect, "{scheme: https, redirectCode: 308, port: 8443}", Redirect(308, "https", port=8443)),
        (read_redirect, "{derivePort: FROM_REQUEST_PORT}", Redirect(port_from=RedirectPort.REQUEST)),
        (read_redirect, "{derivePort: FROM_PROTOCOL_DEFAULT}", Redirect(port_from=RedirectPort.SCHEME)),
        (read_direct_response, "{status: 503, body: {string: 'not now'}}", DirectResponse(503, b"not now")),
        (read_direct_response, "{status: 200, body: {bytes: AAE=}}", DirectResponse(200, b"\0\1")),
        (read_direct_response, "{status: 204}", DirectResponse(204)),
        (read_rewrite, "{uri: /v1, authority: a}", Rewrite(PathEdit(PathEditKind.MATCHED, "/v1"), "a")),
        (read_rewrite, "{uriRegexRewrite: {match: '^/a/(.*)', rewrite: '/b/\\1'}}",
         Rewrite(PathEdit(PathEditKind.REGEX, "/b/\\1", "^/a/(.*)"))),
        (read_rewrite, "{authority: a}", Rewrite(authority="a")),
        (read_fault, "{delay: {percentage: {value: 0.1}, fixedDelay: 5s}}", Fault(Delay(5.0, 1000))),
        (read_fault, "{delay: {percent: 10, fixedDelay: 7s}}", Fault(Delay(7.0, 100_000))),
        (read_fault, "{delay: {fixedDelay: 7s}}", Fault(Delay(7.0, 0))),
        (read_fault, "{abort: {percentage: {value: 100}, httpStatus: 400}}",
         Fault(abort=Abort(1_000_000, 400))),
        (read_fault, "{abort: {httpStatus: 500}}", Fault(abort=Abort(0, 500))),
        (read_fault, "{abort: {percentage: {value: 0.0001}, grpcStatus: UNAVAILABLE}}",
         Fault(abort=Abort(1, grpc_status=14))),
        (read_cors, "{}", Cors(())),
        (read_cors,
         "{allowOrigins: [{exact: https://a.b}, {prefix: http}, {regex: '.*'}, {exact: '*'}], "
         "allowMethods: [GET], allowHeaders: [X-A], exposeHeaders: [x-b], maxAge: 24h, "
         "allowCredentials: true, unmatchedPreflights: IGNORE}",
         Cors((TextMatch(TextKind.EXACT, "https://a.b"), TextMatch(TextKind.PREFIX, "http"),
               TextMatch(TextKind.REGEX, ".*"), TextMatch(TextKind.PREFIX)),
              ("GET",), ("X-A",), ("x-b",), 86400, True, False)),
        (read_cors, "{allowOrigin: [a, '*'], unmatchedPreflights: FORWARD}",
         Cors((TextMatch(TextKind.EXACT, "a"), TextMatch(TextKind.PREFIX)))),
    ],
)  # fmt: skip
def test_one_is_read(reader, text, expected):
    assert read(reader, f"  {text}", "it") == (expected, [])


@pytest.mark.parametrize(
    ("reader", "text", "fields"),
    [
        (read_redirect, "{uri: /x, redirectCode: 304}", ["it"]),
        (read_redirect, "{uri: x}", ["it"]),
        (read_redirect, "{}", ["it"]),
        (read_redirect, "{scheme: ftp}", ["it.scheme"]),
        (read_redirect, "{port: 1, derivePort: FROM_REQUEST_PORT}", ["it"]),
        (read_redirect, "{port: 70000}", ["it.port"]),
        (read_redirect, "{prefixRewrite: /x, uri: /a}", ["it.prefixRewrite"]),
        (read_direct_response, "{status: 600}", ["it"]),
        (read_direct_response, "{}", ["it"]),
        (read_direct_response, "{status: 200, body: {string: a, bytes: AA==}}", ["it.body"]),
        (read_direct_response, "{status: 200, body: {bytes: '&'}}", ["it.body.bytes"]),
        (read_rewrite, "{}", ["it"]),
        (read_rewrite, "{uri: /a, uriRegexRewrite: {match: a, rewrite: b}}", ["it"]),
        (read_rewrite, "{uriRegexRewrite: {rewrite: b}}", ["it.uriRegexRewrite"]),
        (read_rewrite, "{uriRegexRewrite: {match: '(', rewrite: b}}",
         ["it.uriRegexRewrite.match", "it.uriRegexRewrite"]),
        (read_fault, "{}", ["it"]),
        (read_fault, "{delay: {percentage: {value: 101}, fixedDelay: 5s}}", ["it.delay.percentage"]),
        (read_fault, "{delay: {percentage: {value: .nan}, fixedDelay: 5s}}", ["it.delay.percentage.value"]),
        (read_fault, "{delay: {percent: -1, fixedDelay: 5s}}", ["it.delay"]),
        (read_fault, "{delay: {percentage: {value: 1}}}", ["it.delay"]),
        (read_fault, "{delay: {exponentialDelay: 1s}}", ["it.delay"]),
        (read_fault, "{delay: {fixedDelay: 0s}}", ["it.delay.fixedDelay"]),
        (read_fault, "{abort: {}}", ["it.abort"]),
        (read_fault, "{abort: {httpStatus: 500, grpcStatus: OK}}", ["it.abort"]),
        (read_fault, "{abort: {httpStatus: 99}}", ["it.abort"]),
        (read_fault, "{abort: {grpcStatus: '14'}}", ["it.abort.grpcStatus"]),
        (read_cors, "{allowOrigins: [{}]}", ["it.allowOrigins[0]"]),
        (read_cors, "{maxAge: 5}", ["it.maxAge"]),
        (read_cors, "{unmatchedPreflights: MAYBE}", ["it.unmatchedPreflights"]),
    ],
)  # fmt: skip
def test_what_is_wrong_has_a_fault(reader, text, fields):
    assert read(reader, f"  {text}", "it")[1] == fields


def test_a_body_has_a_limit():
    text = f"  {{status: 200, body: {{string: {'x' * ((1 << 20) + 1)}}}}}"
    assert read(read_direct_response, text, "it")[1] == ["it.body"]


@pytest.mark.parametrize(("value", "share"), [("50", 500_000), ("0", 0), ("~", None)])
def test_whole_percentages(value, share):
    assert read(lambda place: read_whole_share(place, "p"), f"  {{p: {value}}}", "it") == (share, [])
