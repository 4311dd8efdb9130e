"""What becomes of the requests that the Gateway API's conformance tests make, and those of Istio's tasks, by
the same code as at a waypoint: objects as they are documented, translated, and asked."""

from __future__ import annotations

from random import Random

import pytest

from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.inventory import Inventory, gather
from ztunnel.control.translation import translate
from ztunnel.l7.request import Request
from ztunnel.l7.routing.plan import NO_FACTS, Plan, plan
from ztunnel.l7.routing.router import Router, decide_about
from ztunnel.waypoint.exchange.shadow import copied


def service(name: str) -> str:
    ports = ", ".join(
        f"{{port: {port}, name: {kind}-{port}}}" for port, kind in ((80, "http"), (7070, "grpc"))
    )
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: mesh}}\n"
        f"spec: {{clusterIP: 10.96.0.{len(name)}, ports: [{ports}]}}\n---\n"
    )


SERVICES = service("echo") + service("echo-v1") + service("echo-v-2") + service("echo-v--3")
V1, V2, V3 = ("[{name: %s, port: 80}]" % name for name in ("echo-v1", "echo-v-2", "echo-v--3"))  # noqa: UP031 (of braces)


def route(rules: str, kind: str = "HTTPRoute", port: int = 80) -> str:
    return (
        f"apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: r, namespace: mesh}}\n"
        f"spec:\n  parentRefs: [{{group: '', kind: Service, name: echo, port: {port}}}]\n  rules:\n{rules}"
    )


class Served:
    """A service whose routes are these."""

    def __init__(self, text: str, port: int = 80) -> None:
        found = gather({"x.yaml": SERVICES + text}, Inventory())
        assert found.faults == ()
        translation = translate(found, MeshSettings())
        self.warnings = [text for text in translation.warnings if "waypoint" not in text]
        self.port = port
        self.router = Router(translation.routes["mesh/echo.mesh.svc.cluster.local"], port)

    def ask(
        self, path: str = "/", method: str = "GET", host: str = "echo", **headers: str
    ) -> tuple[Plan, Request]:
        fields = [
            (name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()
        ]
        request = Request(method.encode(), host.encode(), path.encode(), fields)
        made = plan(decide_about(self.router, request), request, NO_FACTS, self.port, Random(1))
        return made, made.request or request

    def backend(self, path: str = "/", method: str = "GET", **headers: str) -> str | int:
        """The service that a request goes to, or the status that it is answered with."""
        made, _ = self.ask(path, method, **headers)
        if made.reply is not None:
            return made.reply.status
        assert made.destination is not None
        return {"echo-v1": "v1", "echo-v-2": "v2", "echo-v--3": "v3"}[
            made.destination.service.hostname.partition(".")[0]
        ]


def redirect(what: str, path: str) -> str:
    return (
        f"  - matches: [{{path: {{type: PathPrefix, value: {path}}}}}]\n"
        f"    filters: [{{type: RequestRedirect, requestRedirect: {{{what}}}}}]\n"
    )


PREFIX = "path: {type: ReplacePrefixMatch, replacePrefixMatch: /replacement-prefix}"
FULL = "path: {type: ReplaceFullPath, replaceFullPath: /full-path-replacement}"
REDIRECTS = (
    redirect(PREFIX, "/original-prefix")
    + redirect(FULL, "/full")
    + redirect(f"hostname: example.org, {PREFIX}", "/path-and-host")
    + redirect(f"{PREFIX}, statusCode: 301", "/path-and-status")
    + redirect(f"{PREFIX}, statusCode: 308", "/path-and-permanent")
    + redirect("port: 8083", "/port")
    + redirect("hostname: example.org, port: 8083", "/port-and-host")
    + redirect("port: 8083, statusCode: 307", "/port-and-temporary")
    + redirect("scheme: https", "/scheme")
    + redirect("scheme: https, hostname: example.org, statusCode: 303", "/scheme-and-host")
    + redirect("hostname: example.org", "/host")
)


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/original-prefix/lemon", 302, "http://echo/replacement-prefix/lemon"),
        ("/full/path/original", 302, "http://echo/full-path-replacement"),
        ("/path-and-host", 302, "http://example.org/replacement-prefix"),
        ("/path-and-status", 301, "http://echo/replacement-prefix"),
        ("/path-and-permanent?a=b", 308, "http://echo/replacement-prefix?a=b"),
        ("/port", 302, "http://echo:8083/port"),
        ("/port-and-host", 302, "http://example.org:8083/port-and-host"),
        ("/port-and-temporary", 307, "http://echo:8083/port-and-temporary"),
        ("/scheme", 302, "https://echo/scheme"),
        ("/scheme-and-host", 303, "https://example.org/scheme-and-host"),
        ("/host/x", 302, "http://example.org/host/x"),
    ],
)
def test_redirects(path: str, status: int, location: str) -> None:
    """MeshHTTPRouteRedirectPath, -Port, -SchemeRedirect, -RedirectHostAndStatus, 303, 307, 308."""
    served = Served(route(REDIRECTS))
    assert served.warnings == []
    made, _ = served.ask(path)
    assert made.reply is not None
    assert (made.reply.status, dict(made.reply.fields)[b"location"].decode()) == (status, location)


EDITS = (
    "requestHeaderModifier: {set: [{name: X-Header-Set, value: set-overwrites-values}], "
    "add: [{name: X-Header-Add, value: header-val-1}, {name: X-Header-Add-Append, value: header-val-2}], "
    "remove: [X-Header-Remove]}"
)


def rewrite(path: str, to: str, more: str = "") -> str:
    return (
        f"  - matches: [{{path: {{type: PathPrefix, value: {path}}}}}]\n"
        f"    filters: [{{type: URLRewrite, urlRewrite: {{path: {{{to}}}}}}}{more}]\n    backendRefs: {V1}\n"
    )


def to_prefix(text: str) -> str:
    return f"type: ReplacePrefixMatch, replacePrefixMatch: {text}"


def to_full(text: str) -> str:
    return f"type: ReplaceFullPath, replaceFullPath: {text}"


MORE = f", {{type: RequestHeaderModifier, {EDITS}}}"
REWRITES = (
    rewrite("/prefix/one", to_prefix("/one"))
    + rewrite("/strip-prefix", to_prefix("/"))
    + rewrite("/full/one", to_full("/one"))
    + rewrite("/full/edits", to_full("/test"), MORE)
    + rewrite("/prefix/edits", to_prefix("/prefix"), MORE)
)


@pytest.mark.parametrize(
    ("path", "sent", "edited"),
    [
        ("/prefix/one/two", "/one/two", False),
        ("/strip-prefix/three", "/three", False),
        ("/strip-prefix", "/", False),
        ("/full/one/two", "/one", False),
        ("/full/edits/test", "/test", True),
        ("/prefix/edits/one", "/prefix/one", True),
    ],
)
def test_rewrites(path: str, sent: str, edited: bool) -> None:
    """HTTPRouteRewritePath."""
    headers = {
        "X_Header_Remove": "remove-val",
        "X_Header_Add_Append": "append-val-1",
        "X_Header_Set": "set-val",
    }
    _, request = Served(route(REWRITES)).ask(path, **headers)
    assert request.path.decode() == sent
    found: dict[str, str] = {}
    for name, value in request.fields:
        found[name.decode()] = ",".join(filter(None, (found.get(name.decode()), value.decode())))
    assert ("x-header-remove" not in found) is edited
    if edited:
        assert found["x-header-set"] == "set-overwrites-values"
        assert found["x-header-add"] == "header-val-1"
        assert found["x-header-add-append"] == "append-val-1,header-val-2"


def rule(matches: str, to: str) -> str:
    return f"  - matches: [{matches}]\n    backendRefs: {to}\n"


def at(path: str) -> str:
    return f"path: {{type: PathPrefix, value: {path}}}"


def version(value: str) -> str:
    return f"headers: [{{name: version, value: {value}}}]"


def animal(value: str, more: str = "", name: str = "animal") -> str:
    return f"queryParams: [{{name: {name}, value: {value}}}{more}]"


QUERIES = (
    rule(f"{{{animal('whale')}}}", V1)
    + rule(f"{{{animal('dolphin')}}}", V2)
    + rule(
        f"{{{animal('dolphin', ', {name: color, value: blue}')}}}, {{{animal('Whale', name='ANIMAL')}}}", V3
    )
    + rule(f"{{{at('/path1')}, {animal('whale')}}}", V1)
    + rule(f"{{{version('one')}, {animal('whale')}}}", V2)
    + rule(f"{{{at('/path2')}, {version('two')}, {animal('whale')}}}", V3)
    + rule(
        f"{{{at('/path3')}, {animal('shark')}}}, {{{at('/path4')}, {version('three')}, {animal('kraken')}}}",
        V1,
    )
    + rule(f"{{{at('/path5')}, {animal('hydra')}}}", V1)
    + rule(f"{{{version('four')}}}", V3)
    + rule(f"{{{version('four')}, {animal('other')}}}", V2)
)


@pytest.mark.parametrize(
    ("path", "headers", "backend"),
    [
        ("/?animal=whale", {}, "v1"),
        ("/?animal=dolphin", {}, "v2"),
        ("/?animal=dolphin&color=blue", {}, "v3"),
        ("/?ANIMAL=Whale", {}, "v3"),
        ("/?animal=whale&otherparam=irrelevant", {}, "v1"),
        ("/?animal=dolphin&color=yellow", {}, "v2"),
        ("/?color=blue", {}, 404),
        ("/?animal=dog", {}, 404),
        ("/?animal=whaledolphin", {}, 404),
        ("/", {}, 404),
        ("/path1?animal=whale", {}, "v1"),
        ("/?animal=whale", {"version": "one"}, "v2"),
        ("/path2?animal=whale", {"version": "two"}, "v3"),
        ("/path3?animal=shark", {}, "v1"),
        ("/path4?animal=kraken", {"version": "three"}, "v1"),
        ("/?animal=shark", {}, 404),
        ("/path4?animal=kraken", {}, 404),
        ("/path5?animal=hydra", {"version": "four"}, "v1"),
        ("/?animal=hydra", {"version": "four"}, "v3"),
    ],
)
def test_query_parameters(path: str, headers: dict[str, str], backend: str | int) -> None:
    """HTTPRouteQueryParamMatching."""
    assert Served(route(QUERIES)).backend(path, **headers) == backend


METHODS = (
    rule("{method: POST}", V1)
    + rule("{method: GET}", V2)
    + rule(f"{{{at('/path1')}, method: GET}}", V1)
    + rule(f"{{{version('one')}, method: PUT}}", V2)
    + rule(f"{{{at('/path2')}, {version('two')}, method: POST}}", V3)
    + rule(f"{{{at('/path3')}, method: PATCH}}, {{{at('/path4')}, {version('three')}, method: DELETE}}", V1)
    + rule(f"{{{at('/path5')}}}", V1)
    + rule("{method: PATCH}", V2)
    + rule(f"{{{version('four')}}}", V3)
)


@pytest.mark.parametrize(
    ("method", "path", "headers", "backend"),
    [
        ("POST", "/", {}, "v1"),
        ("GET", "/", {}, "v2"),
        ("HEAD", "/", {}, 404),
        ("GET", "/path1", {}, "v1"),
        ("PUT", "/", {"version": "one"}, "v2"),
        ("POST", "/path2", {"version": "two"}, "v3"),
        ("PATCH", "/path3", {}, "v1"),
        ("DELETE", "/path4", {"version": "three"}, "v1"),
        ("PUT", "/", {}, 404),
        ("DELETE", "/path4", {}, 404),
        ("PATCH", "/path5", {}, "v1"),
        ("PATCH", "/", {"version": "four"}, "v2"),
    ],
)
def test_methods(method: str, path: str, headers: dict[str, str], backend: str | int) -> None:
    """HTTPRouteMethodMatching."""
    assert Served(route(METHODS)).backend(path, method, **headers) == backend


def exact(path: str) -> str:
    return f"path: {{type: Exact, value: {path}}}"


ORDER = (
    rule(f"{{{exact('/match')}}}", V1)
    + rule(f"{{{exact('/match/exact')}}}", V2)
    + rule(f"{{{exact('/match/exact/one')}}}", V3)
    + rule(f"{{{at('/match/')}}}", V3)
    + rule(f"{{{at('/match/prefix/')}}}", V1)
    + rule(f"{{{at('/match/prefix/one')}}}", V2)
)


@pytest.mark.parametrize(
    ("path", "backend"),
    [
        ("/match/exact/one", "v3"),
        ("/match/exact", "v2"),
        ("/match", "v1"),
        ("/match/prefix/one/any", "v2"),
        ("/match/prefix/any", "v1"),
        ("/match/any", "v3"),
        ("/matchless", 404),
    ],
)
def test_the_order_of_paths(path: str, backend: str | int) -> None:
    """HTTPRoutePathMatchOrder."""
    assert Served(route(ORDER)).backend(path) == backend


CORS = (
    "  - filters: [{type: CORS, cors: {allowOrigins: ['https://www.foo.com', 'https://*.bar.com'], "
    "allowMethods: [GET, OPTIONS], allowHeaders: [x-header-1, x-header-2], exposeHeaders: [x-header-3], "
    f"allowCredentials: true, maxAge: 3600}}}}]\n    matches: [{{{at('/cors-1')}}}]\n    backendRefs: {V1}\n"
    "  - filters: [{type: CORS, cors: {allowOrigins: ['https://www.foo.com'], allowMethods: ['*']}}]\n"
    f"    matches: [{{{at('/cors-2')}}}]\n    backendRefs: {V1}\n"
    "  - filters: [{type: CORS, cors: {allowOrigins: ['*'], allowMethods: [PUT]}}]\n"
    f"    matches: [{{{at('/any-origin')}}}]\n    backendRefs: {V1}\n"
)
ALLOW = b"access-control-allow-"


@pytest.mark.parametrize(
    ("path", "origin", "asked", "allowed"),
    [
        ("/cors-1", "https://www.foo.com", "GET", True),
        ("/cors-1", "https://www.bar.com", "GET", True),
        ("/cors-1", "https://xpto.www.bar.com", "GET", True),
        ("/cors-1", "https://foobar.com", "GET", False),
        ("/cors-2", "https://www.foo.com", "POST", True),
        ("/any-origin", "https://foobar.com:12345", "PUT", True),
    ],
)
def test_pages_of_other_origins(path: str, origin: str, asked: str, allowed: bool) -> None:
    """HTTPRouteCORS."""
    served = Served(route(CORS))
    headers = {"Origin": origin, "Access_Control_Request_Method": asked}
    made, _ = served.ask(path, "OPTIONS", **headers)
    assert made.reply is not None
    assert made.reply.status == 200
    found = dict(made.reply.fields)
    assert (found.get(ALLOW + b"origin") in (origin.encode(), b"*")) is allowed
    assert (found.get(ALLOW + b"credentials") == b"true") is (allowed and path == "/cors-1")
    if allowed:
        assert {"*", asked} & set(found[ALLOW + b"methods"].decode().replace(" ", "").split(","))
    made, _ = served.ask(path, "GET", Origin=origin)
    response = dict(made.edit(((b":status", b"200"),), "10.0.0.1:80"))
    assert (response.get(ALLOW + b"origin") in (origin.encode(), b"*")) is allowed


GRPC_V1, GRPC_V2 = V1.replace("80", "7070"), V2.replace("80", "7070")


def headers(**wanted: str) -> str:
    told = ", ".join(f"{{name: {name}, value: {value}}}" for name, value in wanted.items())
    return f"{{headers: [{told}]}}"


CALLS = (
    rule(headers(version="one"), GRPC_V1)
    + rule(headers(version="two"), GRPC_V2)
    + rule(headers(version="two", color="orange"), GRPC_V1)
    + rule(f"{headers(color='blue')}, {headers(color='green')}", GRPC_V1)
    + rule(f"{headers(color='red')}, {headers(color='yellow')}", GRPC_V2)
)


@pytest.mark.parametrize(
    ("metadata", "backend"),
    [
        ({"Version": "one"}, "v1"),
        ({"Version": "two"}, "v2"),
        ({"Version": "two", "Color": "orange"}, "v1"),
        ({"Version": "two", "Color": "blue"}, "v2"),
        ({"Color": "orange"}, 404),
        ({"Some_Other_Header": "one"}, 404),
        ({"Color": "blue"}, "v1"),
        ({"Color": "green"}, "v1"),
        ({"Color": "red"}, "v2"),
        ({"Color": "yellow"}, "v2"),
        ({"Color": "purple"}, 404),
    ],
)
def test_calls_of_grpc(metadata: dict[str, str], backend: str | int) -> None:
    """GRPCRouteHeaderMatching; 404 is UNIMPLEMENTED to a client of gRPC."""
    served = Served(route(CALLS, "GRPCRoute", 7070), 7070)
    asked = {"Content_Type": "application/grpc", **metadata}
    assert served.backend("/grpcecho.GrpcEcho/Echo", "POST", **asked) == backend


def test_a_named_rule_is_in_the_log() -> None:
    """MeshHTTPRouteNamedRule."""
    rules = rule(f"{{{at('/named')}}}", V1).replace("  - ", "  - name: named-rule\n    ", 1)
    made, _ = Served(route(rules + rule(f"{{{at('/unnamed')}}}", V2))).ask("/named")
    assert made.name.endswith("named-rule")


ISTIO = """apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: echo, namespace: mesh}}
spec: {{host: echo, subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: echo, namespace: mesh}}
spec:
  hosts: [echo]
  http:
{}
"""


def subset(name: str) -> str:
    return f"{{destination: {{host: echo, subset: {name}}}}}"


def test_a_task_of_istio_mirrors_what_it_sends() -> None:
    """istio.io, Mirroring."""
    mirror = "    mirror: {host: echo, subset: v2}\n    mirrorPercentage: {value: 100.0}\n"
    made, request = Served(ISTIO.format(f"  - route: [{subset('v1')}]\n{mirror}")).ask()
    assert made.destination is not None
    assert (made.destination.subset, [one.subset for one in made.mirrors]) == ("v1", ["v2"])
    assert copied(request).authority == b"echo-shadow"


def test_a_task_of_istio_injects_a_fault_for_one_user() -> None:
    """istio.io, Fault Injection."""
    rules = (
        "  - fault: {delay: {percentage: {value: 100.0}, fixedDelay: 7s}}\n"
        f"    match: [{{headers: {{end-user: {{exact: jason}}}}}}]\n    route: [{subset('v1')}]\n"
        f"  - route: [{subset('v1')}]\n"
    )
    served = Served(ISTIO.format(rules))
    assert [served.ask(end_user=user)[0].delay_seconds for user in ("jason", "martha")] == [7.0, 0.0]


def test_a_task_of_istio_rewrites_and_moves_traffic_by_weight() -> None:
    """istio.io, VirtualService reference: HTTPRewrite, HTTPRouteDestination."""
    rules = (
        "  - match: [{uri: {prefix: /ratings}}]\n    rewrite: {uri: /v1/bookRatings}\n"
        f"    route: [{subset('v1')[:-1]}, weight: 25}}, {subset('v2')[:-1]}, weight: 75}}]\n"
    )
    served = Served(ISTIO.format(rules))
    made, request = served.ask("/ratings/7?a=b")
    assert request.path == b"/v1/bookRatings/7?a=b"
    assert made.destination is not None
    assert served.backend("/other") == 404
