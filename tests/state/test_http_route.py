"""HTTPRoutes and GRPCRoutes are read, and what their schema refuses has a fault at its field."""

import pytest

from tests.state.reading import read
from ztunnel.model.route_match import FieldMatch, Match, TextKind, TextMatch
from ztunnel.model.route_policy import ISTIO_RETRY, Retry, RetryOn
from ztunnel.state.http_route import RouteRule, read_grpc_route, read_http_route
from ztunnel.state.route_filter import Backend, Reference

EXACT, SEGMENTS, REGEX = TextKind.EXACT, TextKind.SEGMENTS, TextKind.REGEX
ALL = Match(path=TextMatch(SEGMENTS, "/"))


def rule(text, reader=read_http_route):
    found, faults = read(reader, f"  rules: [{text}]")
    assert faults == []
    return found.rules[0]


def test_one_is_read():
    found, faults = read(
        read_http_route,
        """
  parentRefs: [{group: "", kind: Service, name: reviews, port: 9080}]
  hostnames: [reviews]
  rules:
  - name: canary
    matches: [{path: {type: PathPrefix, value: /login/}, headers: [{name: Version, value: "2"}]}]
    backendRefs: [{name: reviews-v2, port: 9080, weight: 90}, {name: reviews-v1, port: 9080, weight: 10}]
    timeouts: {request: 10s, backendRequest: 2s}
  - backendRefs: [{name: reviews-v1, port: 9080}]
""",
    )
    assert faults == []
    assert found.parents == (Reference("", "Service", "", "reviews", 9080),)
    first, second = found.rules
    assert first == RouteRule(
        "canary",
        (
            Match(
                path=TextMatch(SEGMENTS, "/login"),
                headers=(FieldMatch("version", TextMatch(EXACT, "2")),),
            ),
        ),
        backends=(
            Backend(Reference("", "Service", "", "reviews-v2", 9080), 90),
            Backend(Reference("", "Service", "", "reviews-v1", 9080), 10),
        ),
        timeout=10,
        try_timeout=2,
    )
    assert second == RouteRule(backends=(Backend(Reference("", "Service", "", "reviews-v1", 9080)),))
    assert (second.matches, second.retries) == ((ALL,), None)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{}", ALL),
        ("{path: {value: /a}}", Match(path=TextMatch(SEGMENTS, "/a"))),
        ("{path: {type: Exact, value: /a/}}", Match(path=TextMatch(EXACT, "/a/"))),
        ("{path: {type: RegularExpression, value: '/a.*'}}", Match(path=TextMatch(REGEX, "/a.*"))),
        ("{method: GET}", Match(path=ALL.path, method=TextMatch(EXACT, "GET"))),
        ("{queryParams: [{name: A, value: b}, {name: A, value: c}, "
         "{name: d, type: RegularExpression, value: e}]}",
         Match(path=ALL.path, query=(FieldMatch("A", TextMatch(EXACT, "b")),
                                     FieldMatch("d", TextMatch(REGEX, "e"))))),
        ("{headers: [{name: A, value: b}, {name: a, value: c}]}",
         Match(path=ALL.path, headers=(FieldMatch("a", TextMatch(EXACT, "b")),))),
    ],
)  # fmt: skip
def test_a_match_is_read(text, match):
    assert rule(f"{{matches: [{text}]}}").matches == (match,)


@pytest.mark.parametrize(
    ("text", "retry"),
    [
        ("{}", Retry(2, ISTIO_RETRY.on | {RetryOn.RESET})),
        ("{attempts: 0}", None),
        ("{attempts: 3, codes: [500, 503, 500], backoff: 100ms}",
         Retry(3, ISTIO_RETRY.on | {RetryOn.RESET, RetryOn.STATUS_CODES}, (500, 503), 0.1, 1.0)),
        ("{attempts: 99}", Retry(10, ISTIO_RETRY.on | {RetryOn.RESET})),
    ],
)  # fmt: skip
def test_retries_are_read(text, retry):
    assert rule(f"{{retry: {text}}}").retries.retry == retry


def test_a_route_without_rules_is_for_everything_and_what_is_not_acted_on_is_named():
    assert read(read_http_route, "  parentRefs: []")[0].rules == (RouteRule(),)
    assert rule("{sessionPersistence: {type: Cookie}}").unread == ("sessionPersistence",)
    assert rule("{fieldOfTomorrow: 1}").unread == ()


PREFIX = (
    "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]"
)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("{backendRef: []}", ["spec.rules[0].backendRef"]),
        ("{matches: [{path: {value: a}}]}", ["spec.rules[0].matches[0].path"]),
        ("{matches: [{path: {type: Exact, value: //a}}]}", ["spec.rules[0].matches[0].path"]),
        ("{matches: [{path: {value: /a/../b}}]}", ["spec.rules[0].matches[0].path"]),
        ("{matches: [{path: {type: Prefix, value: /a}}]}", ["spec.rules[0].matches[0].path.type"]),
        ("{matches: [{path: {type: RegularExpression, value: '('}}]}",
         ["spec.rules[0].matches[0].path.value"]),
        ("{matches: [{method: get}]}", ["spec.rules[0].matches[0].method"]),
        ("{matches: [{headers: [{name: a}]}]}", ["spec.rules[0].matches[0].headers[0]"]),
        ("{matches: [{headers: [{name: 'a b', value: c}]}]}", ["spec.rules[0].matches[0].headers[0]"]),
        ("{matches: [{queryParams: [{value: c}]}]}", ["spec.rules[0].matches[0].queryParams[0]"]),
        ("{timeouts: {request: 1s, backendRequest: 2s}}", ["spec.rules[0].timeouts"]),
        ("{timeouts: {request: 1.5s}}", ["spec.rules[0].timeouts.request"]),
        ("{retry: {codes: [200]}}", ["spec.rules[0].retry.codes[0]"]),
        (f"{{{PREFIX}, matches: [{{path: {{type: Exact, value: /a}}}}]}}", ["spec.rules[0]"]),
        (f"{{{PREFIX}, matches: [{{}}, {{path: {{value: /a}}}}]}}", ["spec.rules[0]"]),
        (f"{{backendRefs: [{{name: a, {PREFIX}}}], matches: [{{path: {{type: Exact, value: /a}}}}]}}",
         ["spec.rules[0]"]),
        ("{filters: [{type: RequestRedirect, requestRedirect: {}}], backendRefs: [{name: a}]}",
         ["spec.rules[0]"]),
    ],
)  # fmt: skip
def test_what_is_wrong_has_a_fault(text, fields):
    assert read(read_http_route, f"  rules: [{text}]")[1] == fields


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("{service: com.Example, method: Login}", TextMatch(EXACT, "/com.Example/Login")),
        ("{service: com.Example}", TextMatch(TextKind.PREFIX, "/com.Example/")),
        ("{method: Login}", TextMatch(REGEX, "/[^/]+/Login")),
        (
            "{type: RegularExpression, service: 'com[.].*', method: Log.*}",
            TextMatch(REGEX, "/com[.].*/Log.*"),
        ),
        ("{type: RegularExpression, service: a}", TextMatch(REGEX, "/a/[^/]+")),
        ("~", TextMatch(SEGMENTS, "/")),
    ],
)
def test_a_method_of_grpc_is_a_path(text, path):
    assert rule(f"{{matches: [{{method: {text}}}]}}", read_grpc_route).matches == (Match(path=path),)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("{method: {}}", ["spec.rules[0].matches[0].method"]),
        ("{method: {service: a/b}}", ["spec.rules[0].matches[0].method"]),
        ("{method: {type: RegularExpression, service: '('}}", ["spec.rules[0].matches[0].method.service"]),
        ("{headers: [{name: a}]}", ["spec.rules[0].matches[0].headers[0]"]),
    ],
)
def test_what_is_wrong_with_it_has_a_fault(text, fields):
    assert read(read_grpc_route, f"  rules: [{{matches: [{text}]}}]")[1] == fields


@pytest.mark.parametrize("reader", [read_http_route, read_grpc_route])
def test_without_a_spec_it_has_a_fault(reader):
    found, faults = read(reader, " ~")
    assert (found.rules, faults) == ((), [""])
    assert read(reader, "  parentsRefs: []")[1] == ["spec.parentsRefs"]
