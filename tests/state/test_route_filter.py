"""Filters and references of the Gateway API's routes are read."""

import pytest

from tests.state.reading import read
from ztunnel.model.route_action import (
    Edits,
    HeaderEdits,
    PathEdit,
    PathEditKind,
    Redirect,
    RedirectPort,
    Rewrite,
)
from ztunnel.model.route_match import TextKind, TextMatch
from ztunnel.model.route_policy import Cors
from ztunnel.state.route_filter import (
    Backend,
    Filters,
    Reference,
    RouteMirror,
    read_backends,
    read_filters,
    read_parents,
)

CANARY = Reference("", "Service", "", "canary", 80)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: My-Header, value: foo}]}}",
         Filters(Edits(HeaderEdits(add=(("my-header", "foo"),))))),
        ("{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: a, value: b}], remove: [c]}}",
         Filters(Edits(response=HeaderEdits(("c",), (("a", "b"),))))),
        ("{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 301}}",
         Filters(redirect=Redirect(301, "https", port_from=RedirectPort.SCHEME))),
        ("{type: RequestRedirect, requestRedirect: {hostname: a.b, port: 8080, "
         "path: {type: ReplaceFullPath, replaceFullPath: x}}}",
         Filters(redirect=Redirect(302, "", "a.b", PathEdit(PathEditKind.FULL, "/x"), 8080,
                                   RedirectPort.REQUEST))),
        ("{type: URLRewrite, urlRewrite: {hostname: a.b, "
         "path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}}",
         Filters(rewrite=Rewrite(PathEdit(PathEditKind.SEGMENTS, "/x"), "a.b"))),
        ("{type: URLRewrite, urlRewrite: {}}", Filters()),
        ("{type: RequestMirror, requestMirror: {backendRef: {name: canary, port: 80}}}",
         Filters(mirrors=(RouteMirror(CANARY),))),
        ("{type: RequestMirror, requestMirror: {backendRef: {name: canary, port: 80}, percent: 42}}",
         Filters(mirrors=(RouteMirror(CANARY, 420_000),))),
        ("{type: RequestMirror, requestMirror: {backendRef: {name: canary, port: 80}, "
         "fraction: {numerator: 5, denominator: 1000}}}", Filters(mirrors=(RouteMirror(CANARY, 5000),))),
        ("{type: CORS, cors: {allowOrigins: ['*', 'https://*.a.b', 'http://c'], allowMethods: ['*'], "
         "allowHeaders: [x], exposeHeaders: [y], allowCredentials: true}}",
         Filters(cors=Cors((TextMatch(TextKind.PREFIX), TextMatch(TextKind.REGEX, r"https://[^/]+\.a\.b"),
                            TextMatch(TextKind.EXACT, "http://c")), ("*",), ("x",), ("y",), 5, True, False))),
        ("{type: ExtensionRef, extensionRef: {group: a, kind: B, name: c}}",
         Filters(foreign=("ExtensionRef",))),
    ],
)  # fmt: skip
def test_a_filter_is_read(text, expected):
    assert read(read_filters, f"  filters: [{text}]", "r") == (expected, [])


REDIRECT = "type: RequestRedirect, requestRedirect: "
MIRROR = "type: RequestMirror, requestMirror: "


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("{}", ["r.filters[0]"]),
        ("{type: CORS}", ["r.filters[0]"]),
        ("{type: CORS, cors: {maxAge: -1}}", ["r.filters[0].cors.maxAge"]),
        (f"{{{REDIRECT}{{statusCode: 304}}}}", ["r.filters[0].requestRedirect"]),
        (f"{{{REDIRECT}{{scheme: ws}}}}", ["r.filters[0].requestRedirect.scheme"]),
        (f"{{{REDIRECT}{{path: {{}}}}}}", ["r.filters[0].requestRedirect.path"]),
        (f"{{{REDIRECT}{{}}}}, {{{REDIRECT}{{}}}}", ["r.filters[1]"]),
        (f"{{{REDIRECT}{{}}}}, {{type: URLRewrite, urlRewrite: {{}}}}", ["r.filters[0].requestRedirect"]),
        (f"{{{MIRROR}{{}}}}", ["r.filters[0].requestMirror"]),
        (f"{{{MIRROR}{{backendRef: {{name: a}}, percent: 101}}}}", ["r.filters[0].requestMirror.percent"]),
        (f"{{{MIRROR}{{backendRef: {{name: a}}, fraction: {{numerator: 101}}}}}}",
         ["r.filters[0].requestMirror.fraction"]),
        (f"{{{MIRROR}{{backendRef: {{name: a}}, percent: 1, fraction: {{numerator: 1}}}}}}",
         ["r.filters[0].requestMirror"]),
        ("{type: URLRewrite, urlRewrites: {}}", ["r.filters[0].urlRewrites", "r.filters[0]"]),
    ],
)  # fmt: skip
def test_what_is_wrong_has_a_fault(text, fields):
    assert read(read_filters, f"  filters: [{text}]", "r")[1] == fields


def test_several_mirrors_are_all_read():
    text = ", ".join(f"{{{MIRROR}{{backendRef: {{name: {name}}}}}}}" for name in "ab")
    found, faults = read(read_filters, f"  filters: [{text}]", "r")
    assert ([one.backend.name for one in found.mirrors], faults) == (["a", "b"], [])


def test_backends_and_parents_are_read():
    found, faults = read(
        read_backends,
        """
  backendRefs:
  - {name: a, port: 80}
  - {group: networking.istio.io, kind: Hostname, name: a.b, namespace: n, weight: 0,
     filters: [{type: ExternalAuth}]}
""",
        "r",
    )
    assert faults == []
    assert found == (
        Backend(Reference("", "Service", "", "a", 80)),
        Backend(
            Reference("networking.istio.io", "Hostname", "n", "a.b"), 0, Filters(foreign=("ExternalAuth",))
        ),
    )
    text = "  parentRefs: [{name: g, sectionName: s}, {group: '', kind: Service, name: x, port: 80}]"
    gateway = Reference("gateway.networking.k8s.io", "Gateway", "", "g", 0, "s")
    assert read(read_parents, text, "r") == ((gateway, Reference("", "Service", "", "x", 80)), [])
    assert str(found[1].reference) == "Hostname n/a.b"


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("{port: 80}", ["r.backendRefs[0]"]),
        ("{name: a, port: 0}", ["r.backendRefs[0].port"]),
        ("{name: a, weight: -1}", ["r.backendRefs[0].weight"]),
        ("{name: a, weight: 1000001}", ["r.backendRefs[0]"]),
    ],
)
def test_what_is_wrong_with_a_backend_has_a_fault(text, fields):
    assert read(read_backends, f"  backendRefs: [{text}]", "r")[1] == fields
