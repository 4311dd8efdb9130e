"""Which Secrets waypoints are given: of their own namespace, where a rule of a service that they call names
one, and no key that nobody needs."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from tests.control.objects import manifest, read, service
from tests.control.scoped import forwards, routes
from ztunnel.control.delta import Delta, HttpResources
from ztunnel.control.routes.credentials import Credentials
from ztunnel.control.settings import MeshSettings
from ztunnel.control.translation import Translator
from ztunnel.model.credential import Credential
from ztunnel.model.provider import ExtensionProvider, OtelTraces, ServicePort, Zipkin
from ztunnel.model.rate_limit import GlobalLimit, RateLimitPolicy
from ztunnel.model.service import Service, ServiceName, Waypoint
from ztunnel.model.service_traffic import ClientTraffic, ServiceTraffic, SubsetTraffic
from ztunnel.model.traffic import UNSAID, ClientTls, PortTraffic, TlsMode, Traffic
from ztunnel.model.workload import Workload
from ztunnel.xds.resource import CREDENTIAL, PROVIDER, RATE_LIMIT

TLS = {"tls.crt": "C", "tls.key": "K", "ca.crt": "R"}


def secret(name: str, namespace: str = "shop", **data: str) -> str:
    texts = {key.replace("_", "."): b64encode(one.encode()).decode() for key, one in data.items()}
    return (
        f"apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata: {texts}\n"
    )


def tls(mode: TlsMode = TlsMode.MUTUAL, name: str = "s") -> PortTraffic:
    return PortTraffic(Traffic(tls=ClientTls(mode, credential=name)))


def traffic(of: Service, policy: PortTraffic, namespace: str = "") -> ServiceTraffic:
    return ServiceTraffic(of.key, (ClientTraffic(namespace, policy),))


class Stage:
    """Credentials, told what there is; what waypoints were sent of them."""

    def __init__(self) -> None:
        self.http = HttpResources()
        self.it = Credentials(self.http)
        self.objects: dict = {}

    def put(self, *texts: str) -> None:
        now = read(*texts) if texts else {}
        for key in self.objects.keys() | now.keys():
            self.it.put(key, self.objects.get(key), now.get(key))
        self.objects = now

    def sent(self, *, anew: bool = False) -> dict[str, Credential]:
        self.unsettled = {str(key) for key in self.it.renew(Delta(), anew=anew)}
        return dict(self.http.in_force.get(CREDENTIAL, {}))


WEB, BACK = service("web", waypoint="shop"), service("back")
RULE = manifest(
    "DestinationRule", "d", "{host: web, trafficPolicy: {tls: {mode: MUTUAL, credentialName: s}}}"
)
WHOLE = secret("s", **{name.replace(".", "_"): one for name, one in TLS.items()})


def stage(policy: PortTraffic, *texts: str) -> Stage:
    made = Stage()
    made.it.put_service(None, WEB)
    made.it.put_traffic(WEB.key, traffic(WEB, policy))
    made.put(*texts)
    return made


def test_a_waypoint_is_given_the_secret_that_a_rule_of_its_service_names() -> None:
    it = stage(tls(), WHOLE, RULE, secret("t", tls_crt="x"), secret("s", "other", tls_crt="x"))
    assert it.sent() == {"shop/s": Credential("s", "shop", "C", "K", "R")}
    assert it.it.wanted == {("shop", "s"), ("shop", "s-cacert")}
    assert it.unsettled == {"DestinationRule shop/d"}
    assert list(it.it.texts()) == []


def test_without_mutual_no_key_leaves_the_control_plane() -> None:
    assert stage(tls(TlsMode.SIMPLE), WHOLE).sent() == {"shop/s": Credential("s", "shop", roots="R")}


def test_authorities_of_their_own_secret_come_first() -> None:
    """`kubectl create secret generic s-cacert --from-file=cacert` (Istio's documentation)."""
    own = secret("s-cacert", cacert="OTHER", crl="L")
    assert stage(tls(), WHOLE, own).sent()["shop/s"] == Credential("s", "shop", "C", "K", "OTHER", "L")
    alone = stage(tls(TlsMode.SIMPLE), own).sent()["shop/s"]
    assert (alone.roots, alone.lacks(ClientTls(TlsMode.SIMPLE))) == ("OTHER", "")


def test_what_changes_in_a_secret_is_sent_at_once_and_what_is_gone_is_said() -> None:
    it = stage(tls(), WHOLE, RULE)
    it.sent()
    it.put(secret("s", tls_crt="C2", tls_key="K2", ca_crt="R"), RULE)
    assert it.sent()["shop/s"].certificate == "C2"
    assert it.sent()
    assert it.unsettled == set()
    it.put(RULE)
    gone = it.sent()["shop/s"]
    assert gone == Credential("s", "shop", problem="there is no Secret shop/s")
    (text,) = it.it.texts()
    assert text == (
        "DestinationRule shop/d: credentialName 's', for waypoints of shop: there is no Secret shop/s"
    )
    ((key, _),) = [each for each in it.objects.items() if each[0].kind == "DestinationRule"]
    assert it.it.remarks(key) == (text.removeprefix(f"{key}: "),)


def test_nobody_is_given_a_secret_that_no_waypoint_needs() -> None:
    it = Stage()
    it.put(WHOLE)
    it.it.put_traffic(BACK.key, traffic(BACK, tls()))
    it.it.put_service(None, BACK)  # it has no waypoint
    assert (it.sent(), it.it.wanted) == ({}, frozenset())


def test_a_service_that_only_routes_lead_to_is_called_by_their_waypoint() -> None:
    it = Stage()
    it.put(WHOLE)
    it.it.put_service(None, WEB)
    it.it.put_traffic(BACK.key, traffic(BACK, tls()))
    it.it.put_routes(WEB.key, routes(WEB, forwards(WEB, BACK)))
    assert it.sent().keys() == {"shop/s"}
    it.it.put_routes(WEB.key, None)
    assert (it.sent(), it.it.wanted) == ({}, frozenset())


def test_a_provider_is_called_by_every_waypoint_though_no_route_leads_there() -> None:
    """Whom CUSTOM policies ask, and collectors; until no provider is there any more."""
    it = Stage()
    it.put(WHOLE)
    it.it.put_service(None, WEB)
    it.it.put_service(None, BACK)
    it.it.put_traffic(BACK.key, traffic(BACK, tls()))
    assert it.sent() == {}
    asked = ExtensionProvider("asked", OtelTraces(ServicePort(BACK.key.hostname, 4317)))
    for provider, names in ((asked, {"shop/s"}), (None, set())):
        it.it.renew(Delta(http={PROVIDER: {"asked": provider}}))
        assert set(it.http.in_force.get(CREDENTIAL, {})) == names
        assert {name for _, name in it.it.wanted} == ({"s", "s-cacert"} if names else set())


@pytest.mark.parametrize("at", [ServicePort(BACK.hostname, 80), ServicePort(BACK.hostname, 80, "shop")])
def test_whoever_is_asked_or_told_by_waypoints_is_called_by_all_of_them(at: ServicePort) -> None:
    """A provider that no route leads to, or the service of a rate limit."""
    it = Stage()
    it.put(WHOLE, secret("s", "edge", ca_crt="E"))
    it.it.put_service(None, WEB)
    it.it.put_service(None, service("far", namespace="edge", waypoint="edge"))
    it.it.put_traffic(BACK.key, traffic(BACK, tls()))
    assert it.sent() == {}
    it.it.put_provider(PROVIDER, "p", ExtensionProvider("p", Zipkin(at)))
    assert it.sent() == {
        "shop/s": Credential("s", "shop", "C", "K", "R"),
        "edge/s": Credential("s", "edge", roots="E"),
    }
    limit = RateLimitPolicy("p", "shop", service=GlobalLimit(at.hostname, at.port, "d", ()))
    it.it.put_provider(RATE_LIMIT, "p", limit)
    it.it.put_provider(PROVIDER, "p", None)
    assert it.sent().keys() == {"shop/s", "edge/s"}
    it.it.put_provider(RATE_LIMIT, "p", None)
    assert (it.sent(), it.it.wanted) == ({}, frozenset())
    it.it.put_provider(PROVIDER, "q", ExtensionProvider("q", Zipkin(replace(at, namespace="other"))))
    assert it.sent() == {}


def test_a_waypoint_that_only_workloads_use_asks_providers_as_any_other() -> None:
    """Until its last pod has gone, and in the namespace where it is then."""
    it = Stage()
    it.put(WHOLE, secret("s", "edge", ca_crt="E"))
    it.it.put_traffic(BACK.key, traffic(BACK, tls()))
    it.it.put_provider(PROVIDER, "p", ExtensionProvider("p", Zipkin(ServicePort(BACK.hostname, 80))))
    first, second = (
        workload(name, waypoint=Waypoint(ServiceName("shop", "w.shop.svc"), None)) for name in ("a", "b")
    )
    for one in (first, second, workload("c"), workload("d", waypoint=Waypoint(None, ip_address("fd00::1")))):
        it.it.put_workload(None, one)
    assert it.sent().keys() == {"shop/s"}
    it.it.put_workload(first, replace(first, healthy=False))
    it.it.put_workload(first, None)
    assert it.sent().keys() == {"shop/s"}
    moved = replace(second, waypoint=Waypoint(ServiceName("edge", "w.edge.svc"), None))
    it.it.put_workload(second, moved)
    assert it.sent().keys() == {"edge/s"}
    it.it.put_workload(moved, None)
    assert (it.sent(), it.it.wanted) == ({}, frozenset())


def workload(name: str, **more: Any) -> Workload:
    return Workload(f"c//Pod/shop/{name}", name, "shop", **more)


@pytest.mark.parametrize("attached", ["Service", "Pod"])
def test_a_secret_for_a_provider_is_found_by_the_objects_alone(attached: str) -> None:
    mesh = (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ztunnel-mesh, namespace: ztunnel-system}\ndata:\n"
        "  mesh: 'extensionProviders: [{name: otel, opentelemetry: "
        "{service: back.shop.svc.cluster.local, port: 80}}]'\n"
    )
    gateway = (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n"
        "metadata: {name: w, namespace: shop, labels: {istio.io/waypoint-for: all}}\n"
        "spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n"
        "status: {addresses: [{type: Hostname, value: w.shop.svc.cluster.local}]}\n"
    )
    use = "istio.io/use-waypoint: w"
    services = [
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop, labels: {{{labels}}}}}\n"
        f"spec: {{clusterIP: 10.96.0.{number}, ports: [{{port: 80, name: http}}]}}\n"
        for number, name, labels in ((1, "web", use if attached == "Service" else ""), (2, "back", ""))
    ]
    labels = f"{use if attached == 'Pod' else 'a: b'}, istio.io/dataplane-mode: ambient"
    pod = (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: web, namespace: shop, labels: {{{labels}}}}}\n"
        "spec: {nodeName: n}\nstatus: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}], phase: Running}\n"
    )
    objects = [gateway, *services, pod, WHOLE, RULE.replace("host: web", "host: back")]
    translator = Translator(MeshSettings())
    translator.update(read(*objects))
    assert translator.http.in_force.get(CREDENTIAL, {}) == {}
    delta = translator.update(read(mesh))
    assert delta.http[CREDENTIAL] == {"shop/s": Credential("s", "shop", "C", "K", "R")}


def test_a_waypoint_that_comes_and_goes_and_moves_takes_its_namespace_along() -> None:
    it = stage(tls(), WHOLE, secret("s", "edge", ca_crt="E"))
    it.it.put_service(WEB, moved := service("web", waypoint="edge"))
    assert it.sent() == {"edge/s": Credential("s", "edge", roots="E")}
    it.it.put_service(moved, service("web"))
    assert it.sent() == {}
    it.it.put_service(service("web"), WEB)
    it.it.put_service(WEB, None)
    assert it.sent() == {}


def test_of_callers_of_several_namespaces_each_has_its_own() -> None:
    it = stage(UNSAID, WHOLE, secret("t", ca_crt="T"))
    clients = (ClientTraffic("shop", tls(TlsMode.SIMPLE, "t")), ClientTraffic("", tls(TlsMode.SIMPLE)))
    it.it.put_traffic(WEB.key, ServiceTraffic(WEB.key, clients))
    assert it.sent().keys() == {"shop/t"}


@pytest.mark.parametrize(
    "client",
    [
        ClientTraffic("", PortTraffic(ports=((443, tls().common),))),
        ClientTraffic("", UNSAID, (SubsetTraffic("v1", tls()),)),
    ],
)
def test_of_a_port_and_of_a_subset_too(client: ClientTraffic) -> None:
    it = stage(UNSAID, WHOLE)
    it.it.put_traffic(WEB.key, ServiceTraffic(WEB.key, (client,)))
    assert it.sent().keys() == {"shop/s"}


def test_why_a_secret_cannot_be_read_is_said_and_what_was_read_counts() -> None:
    troubles = {("shop", "s"): "Secret shop/s cannot be read: not allowed"}
    it = stage(tls(), RULE)
    it.it.trouble = lambda name: troubles.get(name, "")
    assert it.sent()["shop/s"].problem == "Secret shop/s cannot be read: not allowed"
    troubles.clear()
    assert it.sent()["shop/s"].problem == "Secret shop/s cannot be read: not allowed"
    assert it.sent(anew=True)["shop/s"].problem == "there is no Secret shop/s"
    assert it.unsettled == {"DestinationRule shop/d"}
    troubles["shop", "s-cacert"] = "Secret shop/s-cacert cannot be read: away"
    it.put(WHOLE, RULE)
    assert it.sent(anew=True)["shop/s"] == Credential("s", "shop", "C", "K", "R")


def test_where_no_secrets_are_told_nothing_is_said_of_them() -> None:
    it = stage(tls(), RULE)
    it.sent()
    assert len(list(it.it.texts())) == 1
    it.it.untold = True
    assert list(it.it.texts()) == []
