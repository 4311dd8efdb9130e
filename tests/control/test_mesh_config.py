"""The mesh config comes to waypoints, a fault costs only what it is in, and what counts is one ConfigMap."""

from dataclasses import replace

from tests.control.objects import manifest, read
from tests.control.test_golden_routes import SERVICES
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import Key
from ztunnel.control.source.inventory import Inventory, gather
from ztunnel.control.translation import Translator
from ztunnel.model.mesh_defaults import MESH, MeshDefaults
from ztunnel.model.provider import Prometheus
from ztunnel.model.route_policy import ISTIO_RETRY, RetryDefault
from ztunnel.xds.resource import HTTP_POLICY, MESH_DEFAULTS, PROVIDER, TRAFFIC, TYPES

KEY = Key("ConfigMap", "ztunnel-system", "ztunnel-mesh")
ASKS = "{name: asks, envoyExtAuthzHttp: {service: a.b, port: 80}}"
ROUTED = manifest(
    "VirtualService",
    "v",
    "{hosts: [ratings], http: [{route: [{destination: {host: ratings, port: {number: 9080}}}]}]}",
)
WHO = "ConfigMap ztunnel-system/ztunnel-mesh: data.mesh"


def config(text, namespace="ztunnel-system", name="ztunnel-mesh"):
    mesh = "\n".join(f"    {line}" for line in text.splitlines())
    meta = f"{{name: {name}, namespace: {namespace}}}"
    return read(f"apiVersion: v1\nkind: ConfigMap\nmetadata: {meta}\ndata:\n  mesh: |\n{mesh}\n")


class Mesh:
    def __init__(self, settings=None):
        self.translator = Translator(settings or MeshSettings())

    def put(self, text, **where):
        delta = self.translator.update(config(text, **where) if text is not None else {KEY: None})
        return {url: delta.http[url] for url in (PROVIDER, MESH_DEFAULTS) if url in delta.http}

    @property
    def texts(self):
        return self.translator.warnings()

    def unsettled(self, text):
        return self.translator.update(config(text)).unsettled


def test_providers_and_defaults_are_sent_and_only_what_has_changed():
    mesh = Mesh()
    sent = mesh.put(f"accessLogFile: /x\nextensionProviders: [{ASKS}, {{name: m, prometheus: {{}}}}]")
    assert set(sent[PROVIDER]) == {"asks", "m"}
    assert sent[PROVIDER]["m"].what == Prometheus()
    assert sent[MESH_DEFAULTS] == {MESH: MeshDefaults(log_file="/x")}
    sent = mesh.put(f"extensionProviders: [{ASKS}]")
    assert sent == {PROVIDER: {"m": None}, MESH_DEFAULTS: {MESH: None}}
    assert mesh.put(f"extensionProviders:  [{ASKS}]") == {}
    assert mesh.put(None) == {PROVIDER: {"asks": None}}
    assert mesh.texts == ()


def test_providers_go_before_the_policies_that_name_them():
    assert TYPES.index(PROVIDER) < TYPES.index(HTTP_POLICY)


def test_a_fault_costs_only_its_provider_whose_last_good_version_stays():
    mesh = Mesh()
    mesh.put(f"extensionProviders: [{ASKS}]")
    bad, new = ASKS.replace("80", "0"), "{name: new, zipkin: {service: z.b}}"
    assert set(
        mesh.put(f"extensionProviders:\n- {bad}\n- {new}\n- {{name: m, prometheus: {{}}}}")[PROVIDER]
    ) == {"m"}
    assert mesh.translator.mesh.providers["asks"].what.service.port == 80
    assert mesh.texts == (
        f"{WHO}, line 2: extensionProviders[0].envoyExtAuthzHttp.port: port must be a number from 1 to 65535",
        f"{WHO}, line 3: extensionProviders[1].zipkin: port must be a number from 1 to 65535",
        f"{WHO}: provider 'asks' is not taken over: its last good version is in force",
        f"{WHO}: provider 'new' is not taken over: there is none of that name",
    )
    assert mesh.put("extensionProviders: []")[PROVIDER] == {"asks": None, "m": None}
    assert mesh.texts == ()


def test_that_paths_are_always_brought_to_one_spelling_is_said():
    mesh = Mesh()
    mesh.put("pathNormalization: {normalization: MERGE_SLASHES}")
    assert mesh.texts == ()
    mesh.put("pathNormalization: {normalization: NONE}")
    (text,) = mesh.texts
    assert text == (
        f"{WHO}: pathNormalization.normalization: NONE is not done: paths are judged and sent on in one "
        "spelling, as by BASE"
    )
    mesh.put("pathNormalization: {normalization: MERGE}")
    assert mesh.translator.http.in_force[MESH_DEFAULTS][MESH].path_normalization == "NONE"
    assert "normalization must be one of DEFAULT, NONE, BASE" in mesh.texts[0]


def test_a_text_that_is_no_yaml_changes_nothing():
    mesh = Mesh()
    mesh.put(f"extensionProviders: [{ASKS}]")
    assert mesh.put("extensionProviders: [") == {}
    (text,) = mesh.texts
    assert text.startswith(f"{WHO}, line ")
    assert text.endswith("; its last good version is in force")
    assert set(mesh.translator.mesh.providers) == {"asks"}


def test_defaults_that_are_wrong_stay_as_they_were():
    mesh = Mesh()
    mesh.put("accessLogFile: /x")
    assert mesh.put("accessLogFile: /y\naccessLogEncoding: XML") == {}
    assert mesh.texts[-1] == f"{WHO}: defaults are not taken over: its last good version is in force"


def test_how_servers_are_called_where_nothing_is_said_is_kept_as_the_other_defaults():
    mesh = Mesh()
    mesh.translator.update(gather({"services.yaml": SERVICES}, Inventory()).objects)
    mesh.translator.update(read(ROUTED))
    name = "shop/ratings.shop.svc.cluster.local"
    sent = mesh.translator.update(
        config(
            "defaultHttpRetryPolicy: {attempts: 0}\n"
            "defaultTrafficPolicy: {outlierDetection: {interval: 3s}, loadBalancer: {simple: RANDOM}}\n"
            "connectTimeout: 1s"
        )
    )
    assert mesh.texts == (f"{WHO}: nothing is done with connectTimeout, defaultTrafficPolicy.loadBalancer",)
    assert sent.http[MESH_DEFAULTS] == {MESH: MeshDefaults(retries=RetryDefault(None))}
    assert sent.http[TRAFFIC][name].at("", 80).outlier.interval_seconds == 3
    assert [rule.retry for rule in sent.routes[name].rules] == [None]
    bad = mesh.translator.update(config("defaultHttpRetryPolicy: {attempts: -1}"))
    assert (bad.http, bad.routes) == ({}, {})
    later = Mesh()
    later.translator.mesh.recall(mesh.translator.mesh.last_good().items())
    later.translator.update(gather({"services.yaml": SERVICES}, Inventory()).objects)
    later.translator.update(config("defaultHttpRetryPolicy: {attempts: -1}"))
    assert later.translator.http.in_force[TRAFFIC][name].at("", 80).outlier.interval_seconds == 3
    sent = mesh.translator.update({KEY: None})
    assert (sent.http[MESH_DEFAULTS], sent.http[TRAFFIC][name]) == ({MESH: None}, None)
    assert [rule.retry for rule in sent.routes[name].rules] == [ISTIO_RETRY]


def test_only_the_config_map_that_is_named_counts():
    mesh = Mesh()
    assert mesh.put(f"extensionProviders: [{ASKS}]", name="istio", namespace="istio-system") == {}
    mesh = Mesh(replace(MeshSettings(), mesh_config="istio-system/istio"))
    sent = mesh.put(f"extensionProviders: [{ASKS}]", name="istio", namespace="istio-system")
    assert set(sent[PROVIDER]) == {"asks"}


def test_a_provider_of_a_kind_that_nothing_is_done_with_is_remarked():
    mesh = Mesh()
    mesh.put("extensionProviders: [{name: l, lightstep: {}}]")
    assert mesh.texts == (f"{WHO}: provider 'l': nothing is done with lightstep",)


CUSTOM = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec: {action: CUSTOM, provider: {name: asks}, rules: [{}], targetRefs: [{kind: Service, name: web}]}
"""
POLICY = Key("AuthorizationPolicy", "shop", "p")
NOBODY = (
    "there is no provider 'asks' in the mesh config (authorizers: {}): what the policy matches is refused"
)


def test_a_policy_whose_provider_comes_and_goes_is_told_of_it():
    mesh = Mesh()
    mesh.translator.update(read(CUSTOM))
    said = mesh.translator.said
    assert said(POLICY).problem == NOBODY.format("none")
    assert f"{POLICY}: {NOBODY.format('none')}" in mesh.texts
    assert POLICY in mesh.unsettled(f"extensionProviders: [{ASKS}]")
    assert said(POLICY).problem == ""
    assert not any("asks" in text for text in mesh.texts)
    assert POLICY not in mesh.unsettled(f"extensionProviders: [{ASKS}, {{name: m, prometheus: {{}}}}]")
    other = ASKS.replace("name: asks", "name: others")
    assert POLICY in mesh.unsettled(f"extensionProviders: [{other}]")
    assert said(POLICY).problem == NOBODY.format("others")
    assert POLICY in mesh.unsettled("extensionProviders: [{name: asks, prometheus: {}}]")
    assert said(POLICY).problem == (
        "the provider 'asks' is no authorizer: Prometheus: what the policy matches is refused"
    )


def test_what_is_not_good_any_more_is_in_force_in_the_next_process_too():
    first = Mesh()
    first.put(f"accessLogFile: /x\nextensionProviders: [{ASKS}, {{name: m, prometheus: {{}}}}]")
    assert first.translator.mesh.last_good() == {}
    bad = ASKS.replace("80", "0")
    now = f"accessLogFile: [1]\nextensionProviders: [{bad}, {{name: m, prometheus: {{}}}}]"
    first.put(now)
    kept = first.translator.mesh.last_good()
    ((_, names),) = kept.items()
    assert names == ("", "asks")
    second = Mesh()
    second.translator.mesh.recall(kept.items())
    sent = second.put(now)
    assert set(sent[PROVIDER]) == {"asks", "m"}
    assert sent[MESH_DEFAULTS] == {MESH: MeshDefaults(log_file="/x")}
    assert second.texts == first.texts
    assert second.translator.mesh.last_good() == kept
    second.put(f"extensionProviders: [{ASKS}]")
    assert second.translator.mesh.last_good() == {}


def test_a_text_that_cannot_be_read_keeps_all_over_a_restart_and_a_map_that_is_gone_nothing():
    first = Mesh()
    first.put(f"extensionProviders: [{ASKS}]")
    first.put("a: [")
    kept = first.translator.mesh.last_good()
    second = Mesh()
    second.translator.mesh.recall(kept.items())
    assert set(second.put("a: [")[PROVIDER]) == {"asks"}
    third = Mesh()
    third.translator.mesh.recall(kept.items())
    assert third.put("{}") == {}
    assert third.put("a: [") == {}
    assert third.translator.mesh.last_good() == {"{}\n": ("",)}


def test_what_was_kept_and_makes_no_sense_is_passed_over():
    mesh = Mesh()
    texts = "a: [", "{}", f"extensionProviders: [{ASKS}]"
    mesh.translator.mesh.recall(zip(texts, [("asks", ""), ("asks",), ("x",)], strict=True))
    assert mesh.put(f"extensionProviders: [{ASKS.replace('80', '0')}]") == {}
