"""Each field of each kind of provider is read, and what istiod refuses is refused, with the field."""

import pytest

from ztunnel.model.http_policy import TextKind, TextMatch
from ztunnel.model.provider import (
    BodyCheck,
    ExtAuthz,
    ExtensionProvider,
    FileLog,
    LogFormat,
    OtelLog,
    OtelTraces,
    Prometheus,
    SentHeader,
    ServicePort,
    Speech,
    Unsupported,
    Zipkin,
)
from ztunnel.state.mesh_config import read_mesh_config

EXACT, PREFIX, SUFFIX = TextKind.EXACT, TextKind.PREFIX, TextKind.SUFFIX
AT = ServicePort("a.b.svc.cluster.local", 80)
HERE = "service: a.b.svc.cluster.local, port: 80"


def read(spec):
    return read_mesh_config(f"extensionProviders: [{{name: p, {spec}}}]")


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        (f"envoyExtAuthzHttp: {{{HERE}}}", ExtAuthz(Speech.HTTP, AT)),
        (
            "envoyExtAuthzHttp: {service: ns/b.example.org, port: 8000, timeout: 1.5s, failOpen: true,"
            " statusOnError: '503', pathPrefix: /check, includeRequestHeadersInCheck: [X-A, x-b*, '*-c'],"
            " includeAdditionalHeadersInCheck: {X-Static: v}, includeRequestBodyInCheck: {maxRequestBytes: 9,"
            " allowPartialMessage: true, packAsBytes: true}, headersToUpstreamOnAllow: [x-u],"
            " headersToDownstreamOnDeny: [x-d], headersToDownstreamOnAllow: ['*'], clearRouteCache: true}",
            ExtAuthz(
                Speech.HTTP,
                ServicePort("b.example.org", 8000, "ns"),
                1.5,
                True,
                503,
                "/check",
                (TextMatch(EXACT, "x-a"), TextMatch(PREFIX, "x-b"), TextMatch(SUFFIX, "-c")),
                (("x-static", "v"),),
                BodyCheck(9, True, True),
                (TextMatch(EXACT, "x-u"),),
                (TextMatch(EXACT, "x-d"),),
                (TextMatch(PREFIX),),
                True,
            ),
        ),
        (
            "envoyExtAuthzHttp: {service: a.b.svc.cluster.local, port: '80',"
            " includeRequestBodyInCheck: {maxRequestBytes: '9'}}",
            ExtAuthz(Speech.HTTP, AT, body=BodyCheck(9)),
        ),
        (
            f"envoyExtAuthzHttp: {{{HERE}, includeHeadersInCheck: [x-old], pathPrefix: /}}",
            ExtAuthz(Speech.HTTP, AT, include_headers=(TextMatch(EXACT, "x-old"),)),
        ),
        (
            f"envoyExtAuthzGrpc: {{{HERE}, timeout: 10ms, failOpen: true, statusOnError: '401',"
            " includeRequestBodyInCheck: {maxRequestBytes: 9}, clearRouteCache: true}",
            ExtAuthz(Speech.GRPC, AT, 0.01, True, 401, body=BodyCheck(9), clear_route_cache=True),
        ),
        ("envoyFileAccessLog: {}", FileLog("/dev/stdout")),
        (
            "envoyFileAccessLog: {path: /x, logFormat: {text: '%A%'}, omitEmptyValues: true}",
            FileLog("/x", LogFormat("%A%"), True),
        ),
        (
            f"envoyOtelAls: {{{HERE}, logName: n, logFormat: {{labels: {{a: '%B%'}}}}}}",
            OtelLog(AT, "n", LogFormat("", (("a", "%B%"),))),
        ),
        (f"opentelemetry: {{{HERE}}}", OtelTraces(AT)),
        (
            f"opentelemetry: {{{HERE}, maxTagLength: 9, resourceDetectors: {{environment: {{}}}}, http: {{"
            "path: /v1/traces, timeout: 2s, headers: [{name: a, value: b}, {name: c, envName: D}]}}",
            OtelTraces(AT, "/v1/traces", 2.0, (SentHeader("a", "b"), SentHeader("c", "", "D")), 9, True),
        ),
        (
            f"opentelemetry: {{{HERE}, grpc: {{timeout: 2s, initialMetadata: [{{name: a, value: b}}]}}}}",
            OtelTraces(AT, "", 2.0, (SentHeader("a", "b"),)),
        ),
        (
            f"opentelemetry: {{{HERE}, serviceAttributeEnrichment: OTEL_SEMANTIC_CONVENTIONS}}",
            OtelTraces(AT, by_conventions=True),
        ),
        (f"opentelemetry: {{{HERE}, serviceAttributeEnrichment: ISTIO_CANONICAL}}", OtelTraces(AT)),
        (f"zipkin: {{{HERE}}}", Zipkin(AT)),
        (
            f"zipkin: {{{HERE}, path: /z, enable64bitTraceId: true, maxTagLength: 7, timeout: 1s,"
            " traceContextOption: USE_B3_WITH_W3C_PROPAGATION}",
            Zipkin(AT, "/z", 1.0, (), 7, True, True),
        ),
        ("prometheus: {}", Prometheus()),
        (f"lightstep: {{{HERE}, accessToken: t}}", Unsupported("lightstep")),
    ],
)
def test_what_is_said_of_a_provider_is_read(spec, what):
    found = read(spec)
    assert found.faults == ()
    assert found.providers == {"p": ExtensionProvider("p", what)}


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ("", "", "needs one kind of provider, has none"),
        ("prometheus: {}, zipkin: {}", "", "needs one kind of provider, has zipkin and prometheus"),
        ("promethus: {}", ".promethus", "unknown field; did you mean prometheus?"),
        (
            "envoyExtAuthzHttp: {port: 80}",
            ".envoyExtAuthzHttp",
            "service must be [namespace/]hostname, is ''",
        ),
        (
            "envoyExtAuthzHttp: {service: A b, port: 80}",
            ".envoyExtAuthzHttp.service",
            "service must be [namespace/]hostname, is 'A b'",
        ),
        (
            "envoyExtAuthzHttp: {service: '*.b', port: 80}",
            ".envoyExtAuthzHttp.service",
            "service must be [namespace/]hostname, is '*.b'",
        ),
        (
            "envoyExtAuthzHttp: {service: a.b}",
            ".envoyExtAuthzHttp",
            "port must be a number from 1 to 65535",
        ),
        (
            "envoyExtAuthzGrpc: {service: a.b, port: 65536}",
            ".envoyExtAuthzGrpc.port",
            "port must be a number from 1 to 65535",
        ),
        (
            f"envoyExtAuthzHttp: {{{HERE}, statusOnError: '999'}}",
            ".envoyExtAuthzHttp.statusOnError",
            "must be an HTTP status from 200 to 599, in quotes, is '999'",
        ),
        (
            f"envoyExtAuthzHttp: {{{HERE}, statusOnError: '100'}}",
            ".envoyExtAuthzHttp.statusOnError",
            "must be an HTTP status from 200 to 599, in quotes, is '100'",
        ),
        (
            f"envoyExtAuthzHttp: {{{HERE}, pathPrefix: check}}",
            ".envoyExtAuthzHttp.pathPrefix",
            "must begin with / and have neither spaces nor ? nor #",
        ),
        (
            f"envoyExtAuthzHttp: {{{HERE}, timeout: 1 s}}",
            ".envoyExtAuthzHttp.timeout",
            "not a duration: 1h, 1m, 1s or 1ms, or several of them: '1 s'",
        ),
        (
            f"envoyExtAuthzHttp: {{{HERE}, timeout: 0s}}",
            ".envoyExtAuthzHttp.timeout",
            "must not be shorter than 0.001 s",
        ),
        (
            f"envoyExtAuthzHttp: {{{HERE}, includeRequestBodyInCheck: {{}}}}",
            ".envoyExtAuthzHttp.includeRequestBodyInCheck",
            "maxRequestBytes must be a number from 1 to 16777216",
        ),
        (
            f"envoyExtAuthzHttp: {{{HERE}, headersToUpstreamOnAllow: ['a*b']}}",
            ".envoyExtAuthzHttp.headersToUpstreamOnAllow[0]",
            "must be the name of a header, or one with * at its begin or end",
        ),
        (
            f'envoyExtAuthzHttp: {{{HERE}, includeAdditionalHeadersInCheck: {{a: "b\\r\\nc: d"}}}}',
            ".envoyExtAuthzHttp.includeAdditionalHeadersInCheck.a",
            "no value of a header: it has a line's end or NUL in it",
        ),
        (
            f"envoyExtAuthzHttp: {{{HERE}, includeAdditionalHeadersInCheck: {{'a b': c}}}}",
            ".envoyExtAuthzHttp.includeAdditionalHeadersInCheck[a b]",
            "no name of a header: 'a b'",
        ),
        (
            f"envoyExtAuthzGrpc: {{{HERE}, pathPrefix: /a}}",
            ".envoyExtAuthzGrpc.pathPrefix",
            "unknown field",
        ),
        (
            f"opentelemetry: {{{HERE}, http: {{}}}}",
            ".opentelemetry.http",
            "needs a path",
        ),
        (
            f"opentelemetry: {{{HERE}, http: {{path: /a}}, grpc: {{}}}}",
            ".opentelemetry",
            "http and grpc exclude each other",
        ),
        (
            f"opentelemetry: {{{HERE}, serviceAttributeEnrichment: CANONICAL}}",
            ".opentelemetry",
            "serviceAttributeEnrichment must be one of ISTIO_CANONICAL, OTEL_SEMANTIC_CONVENTIONS",
        ),
        (
            f"opentelemetry: {{{HERE}, dynatraceSampler: {{}}}}",
            ".opentelemetry",
            "dynatraceSampler is not supported",
        ),
        (
            f"opentelemetry: {{{HERE}, http: {{path: /a, headers: [{{name: a, value: b, envName: C}}]}}}}",
            ".opentelemetry.http.headers[0]",
            "value and envName exclude each other",
        ),
        (
            f"zipkin: {{{HERE}, traceContextOption: W3C}}",
            ".zipkin",
            "traceContextOption must be one of USE_B3, USE_B3_WITH_W3C_PROPAGATION",
        ),
        ("prometheus: {a: b}", ".prometheus.a", "unknown field"),
    ],
)
def test_what_is_wrong_with_a_provider_is_said_with_its_field(spec, field, message):
    found = read(spec)
    assert [(one.field, one.message) for one in found.faults] == [(f"extensionProviders[0]{field}", message)]
    assert (dict(found.providers), found.faulty) == ({}, {"p"})


def test_a_provider_needs_a_name():
    found = read_mesh_config("extensionProviders: [{prometheus: {}}]")
    assert [one.message for one in found.faults] == ["needs a name"]
