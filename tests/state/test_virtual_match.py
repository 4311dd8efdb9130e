"""Matches of a VirtualService are read into what the router compares."""

from ipaddress import ip_network

import pytest

from tests.state.reading import read
from ztunnel.model.route_match import ClaimMatch, FieldMatch, Match, TextKind, TextMatch
from ztunnel.state.virtual_match import (
    ConnectionMatch,
    RequestMatch,
    Sources,
    read_connection_match,
    read_request_match,
)

PRESENT = TextMatch(TextKind.PRESENT)


def exact(text):
    return TextMatch(TextKind.EXACT, text)


def request(text):
    found, faults = read(read_request_match, f"  {text}", "m")
    assert faults == []
    return found


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{uri: {prefix: /wpcatalog}}", Match(path=TextMatch(TextKind.PREFIX, "/wpcatalog"))),
        ("{uri: {exact: /A}, ignoreUriCase: true}", Match(path=TextMatch(TextKind.EXACT, "/A", True))),
        ("{uri: {regex: '/b[0-9]'}, ignoreUriCase: true}", Match(path=TextMatch(TextKind.REGEX, "/b[0-9]"))),
        ("{uri: {}}", Match()),
        ("{uri: {regex: '*'}}", Match()),
        ("{method: {exact: GET}, scheme: {exact: http}, authority: {prefix: a.}}",
         Match(method=exact("GET"), scheme=exact("http"), authority=TextMatch(TextKind.PREFIX, "a."))),
        ("{port: 9080, name: m}", Match(name="m", ports=(9080,))),
        ("{headers: {End-User: {exact: jason}}}", Match(headers=(FieldMatch("end-user", exact("jason")),))),
        ("{headers: {x: {}, y: {regex: '*'}, z: {exact: ''}}}",
         Match(headers=tuple(FieldMatch(name, PRESENT) for name in "xyz"))),
        ("{headers: {uri: {exact: a}, Method: {exact: b}}}", Match()),
        ("{withoutHeaders: {x: {exact: a}, y: {}}}",
         Match(headers=(FieldMatch("x", exact("a"), True), FieldMatch("y", PRESENT, True)))),
        ("{queryParams: {Debug: {exact: 'true'}, any: {}}}",
         Match(query=(FieldMatch("Debug", exact("true")), FieldMatch("any", PRESENT)))),
        ("{headers: {'@request.auth.claims.group.id': {exact: a}}}",
         Match(claims=(ClaimMatch(("group", "id"), exact("a")),))),
        ("{withoutHeaders: {'@request.auth.claims[https://x/y][id]': {}}}",
         Match(claims=(ClaimMatch(("https://x/y", "id"), PRESENT, True),))),
    ],
)  # fmt: skip
def test_a_match_is_read(text, match):
    assert request(text).match == match


def test_who_calls_is_kept_apart():
    found = request("{sourceLabels: {app: a}, sourceNamespace: b, gateways: [mesh, c/d], statPrefix: e}")
    assert found == RequestMatch(Match(), Sources({"app": "a"}, "b", ("mesh", "c/d")))
    assert request("{ignoreUriCase: true}").ignore_case


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("{uri: {exact: a, prefix: b}}", "m.uri"),
        ("{uri: {suffix: a}}", "m.uri.suffix"),
        ("{uri: {regex: '('}}", "m.uri.regex"),
        ("{url: {exact: a}}", "m.url"),
        ("{headers: {x: }}", "m.headers.x"),
        ("{headers: {'a b': {exact: c}}}", "m.headers[a b]"),
        ("{headers: {':path': {exact: c}}}", "m.headers[:path]"),
        ("{headers: {'@request.auth.claims': {exact: c}}}", "m.headers[@request.auth.claims]"),
        ("{headers: {'@request.auth.claims.a..b': {}}}", "m.headers[@request.auth.claims.a..b]"),
        ("{queryParams: {'': {exact: c}}}", "m.queryParams[]"),
        ("{port: 0}", "m.port"),
        ("{sourceLabels: {app: '*'}}", "m.sourceLabels.app"),
    ],
)
def test_what_is_wrong_has_a_fault(text, field):
    assert read(read_request_match, f"  {text}", "m")[1] == [field]


def test_matches_of_connections_are_read():
    text = "{port: 443, destinationSubnets: [10.0.0.0/8, 'fd00::/8'], sniHosts: [A.b], sourceNamespace: n}"
    found, faults = read(lambda place: read_connection_match(place, tls=True), f"  {text}", "m")
    nets = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert (found, faults) == (ConnectionMatch(Sources({}, "n"), 443, nets, ("a.b",)), [])


@pytest.mark.parametrize(
    ("text", "tls", "field"),
    [
        ("{destinationSubnets: [x]}", False, "m.destinationSubnets[0]"),
        ("{sniHosts: [a]}", False, "m.sniHosts"),
        ("{port: 1}", True, "m"),
    ],
)
def test_what_is_wrong_with_them_has_a_fault(text, tls, field):
    assert read(lambda place: read_connection_match(place, tls=tls), f"  {text}", "m")[1] == [field]
