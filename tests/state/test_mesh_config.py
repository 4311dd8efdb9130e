"""A MeshConfig is read for what waypoints need; a provider that is wrong costs only itself."""

import pytest

from ztunnel.model.mesh_defaults import CustomTag, LogEncoding, MeshDefaults, TagSource, TracingDefaults
from ztunnel.model.provider import BodyCheck, OtelTraces, Prometheus, ServicePort
from ztunnel.model.route_policy import ISTIO_RETRY, Retry, RetryDefault, RetryOn
from ztunnel.model.traffic import NO_TRAFFIC, Outlier, Pool, Traffic
from ztunnel.state.mesh_config import MOST_PROVIDERS, MeshConfig, read_mesh_config

ISTIO = """
accessLogFile: /dev/stdout
accessLogEncoding: JSON
accessLogFormat: "%PROTOCOL%"
enableTracing: true
defaultConfig:
  discoveryAddress: istiod.istio-system.svc:15012
  tracing:
    sampling: 12.5
    maxPathTagLength: 99
    zipkin: {address: "z.istio-system:9411"}
    customTags:
      a: {literal: {value: b}}
      c: {environment: {name: D, defaultValue: e}}
      f: {header: {name: x-f}}
      g: {formatter: {value: "%REQ(x)%"}}
defaultProviders: {accessLogging: [l, l], metrics: [m], tracing: [t]}
pathNormalization: {normalization: MERGE_SLASHES}
enablePrometheusMerge: true
rootNamespace: istio-system
trustDomain: cluster.local
"""


def test_what_counts_for_the_whole_mesh_is_read_and_the_rest_is_istios():
    tags = (
        CustomTag("a", TagSource.LITERAL, "b"),
        CustomTag("c", TagSource.ENVIRONMENT, "D", "e"),
        CustomTag("f", TagSource.HEADER, "x-f"),
        CustomTag("g", TagSource.FORMATTER, "%REQ(x)%"),
    )
    spans = TracingDefaults(12.5, 99, tags, "z.istio-system:9411")
    expected = MeshDefaults(
        ("l",), ("m",), ("t",), "/dev/stdout", LogEncoding.JSON, "%PROTOCOL%", True, spans,
        "MERGE_SLASHES",
    )  # fmt: skip
    assert read_mesh_config(ISTIO) == MeshConfig({}, expected)


@pytest.mark.parametrize("text", ["", "{}", "# nothing", "extensionProviders: []", "defaultProviders: {}"])
def test_nothing_is_nothing(text):
    assert read_mesh_config(text) == MeshConfig()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ""),
        ("{}", ""),
        ("{normalization: DEFAULT}", "DEFAULT"),
        ("{normalization: NONE}", "NONE"),
        ("{normalization: BASE}", "BASE"),
        ("{normalization: DECODE_AND_MERGE_SLASHES}", "DECODE_AND_MERGE_SLASHES"),
    ],
)
def test_how_paths_are_brought_to_one_spelling_is_read(text, found):
    assert read_mesh_config(f"pathNormalization: {text}").defaults.path_normalization == found


@pytest.mark.parametrize("text", ["{normalization: MERGE}", "{normalisation: BASE}", "MERGE_SLASHES"])
def test_a_spelling_that_there_is_not_is_a_fault(text):
    """And no BASE by mistake: the last good version stays."""
    found = read_mesh_config(f"pathNormalization: {text}")
    assert found.defaults is None
    assert found.faults


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", None),
        ("{attempts: 0}", RetryDefault(None)),
        ("{attempts: 3}", RetryDefault(Retry(3, ISTIO_RETRY.on))),
        ("{attempts: 1, retryOn: '503,reset', perTryTimeout: 2s, backoff: 1s, retryRemoteLocalities: true, "
         "retryIgnorePreviousHosts: false}",
         RetryDefault(Retry(1, frozenset((RetryOn.STATUS_CODES, RetryOn.RESET)), (503,), 1, 10, False, True),
                      2)),
        ("{attempts: 1, per_try_timeout: 2s, retry_on: reset}",
         RetryDefault(Retry(1, frozenset((RetryOn.RESET,))), 2)),
    ],
)  # fmt: skip
def test_what_is_tried_again_for_the_whole_mesh_is_read(text, found):
    assert read_mesh_config(f"defaultHttpRetryPolicy: {text}") == MeshConfig({}, MeshDefaults(retries=found))


@pytest.mark.parametrize(
    "text",
    ["defaultHttpRetryPolicy: {retryOn: '503'}", "defaultHttpRetryPolicy: {attempts: 1, retryon: '5xx'}",
     "defaultTrafficPolicy: {connectionPool: {}}", "defaultTrafficPolicy: {outlier: {}}"],
)  # fmt: skip
def test_what_is_wrong_of_how_servers_are_called_is_a_fault(text):
    found = read_mesh_config(text)
    assert (found.defaults, found.traffic, len(found.faults)) == (None, NO_TRAFFIC, 1)


def test_of_a_traffic_policy_for_the_whole_mesh_two_blocks_are_read_and_the_rest_is_named():
    found = read_mesh_config(
        "default_traffic_policy:\n"
        "  connection_pool: {tcp: {max_connections: 5}, http: {http1_max_pending_requests: 6}}\n"
        "  outlier_detection: {consecutive_5xx_errors: 4}\n  tls: {mode: SIMPLE}\n  portLevelSettings: []\n"
        "defaultInboundHttpRetryPolicy: {attempts: 0}\nlocalityLbSetting: {enabled: false}"
    )
    traffic = Traffic(pool=Pool(connections=5, pending_requests=6), outlier=Outlier(server_errors=4))
    assert (found.defaults, found.traffic, found.faults) == (MeshDefaults(), traffic, ())
    assert found.unread == (
        "defaultInboundHttpRetryPolicy", "localityLbSetting", "defaultTrafficPolicy.tls",
        "defaultTrafficPolicy.portLevelSettings",
    )  # fmt: skip


OTHERS = """
proxyListenPort proxyInboundListenPort proxyHttpPort connectTimeout protocolDetectionTimeout tcpKeepalive
ingressClass ingressService ingressControllerMode ingressSelector enableEnvoyAccessLogService
disableEnvoyListenerLog outboundTrafficPolicy inboundTrafficPolicy configSources enableAutoMtls trustDomain
trustDomainAliases caCertificates defaultServiceExportTo defaultVirtualServiceExportTo
defaultDestinationRuleExportTo rootNamespace localityLbSetting zoneAwareLbSetting dnsRefreshRate
h2UpgradePolicy inboundClusterStatName outboundClusterStatName certificates serviceSettings
enablePrometheusMerge verifyCertificateAtClient ca discoverySelectors defaultInboundHttpRetryPolicy meshMTLS
tlsDefaults serviceScopeConfigs hboneIdleTimeout serviceEntryVisibility
"""


def test_no_other_field_of_istios_is_taken_for_a_slip():
    """As in istio/api mesh/v1alpha1/config.proto of 1.31, and of what is to come."""
    assert read_mesh_config("\n".join(f"{name}: {{}}" for name in OTHERS.split())).faults == ()


SNAKE = """
extension_providers:
- name: otel
  opentelemetry:
    port: 4317
    service: otel.observability.svc.cluster.local
    max_tag_length: 9
    resource_detectors: {environment: {}}
    service_attribute_enrichment: OTEL_SEMANTIC_CONVENTIONS
- name: asks
  envoy_ext_authz_http:
    service: asks.auth
    port: "8000"
    fail_open: true
    status_on_error: "503"
    path_prefix: /p
    include_request_headers_in_check: [x-a]
    include_additional_headers_in_check: {path_prefix: kept}
    include_request_body_in_check: {max_request_bytes: 7, allow_partial_message: true, pack_as_bytes: true}
    headers_to_upstream_on_allow: [x-b]
- name: file
  envoy_file_access_log: {log_format: {labels: {path_prefix: "%PROTOCOL%"}}}
- name: z
  zipkin: {service: z.b, port: 9, enable_64bit_trace_id: true}
default_providers: {access_logging: [file]}
enable_tracing: true
access_log_file: /dev/stdout
path_normalization: {normalization: MERGE_SLASHES}
default_config:
  tracing: {max_path_tag_length: 5, custom_tags: {log_format: {header: {name: x-f, default_value: d}}}}
"""


def test_names_of_fields_may_be_those_of_the_messages():
    """As in Istio's documentation of sampling, `resource_detectors`: JSON of Protocol Buffers has both."""
    found = read_mesh_config(SNAKE)
    assert found.faults == ()
    providers = {name: one.what for name, one in found.providers.items()}
    assert providers["otel"] == OtelTraces(
        ServicePort("otel.observability.svc.cluster.local", 4317), most_tag_length=9,
        from_environment=True, by_conventions=True,
    )  # fmt: skip
    asks = providers["asks"]
    assert (asks.fail_open, asks.error_status, asks.path_prefix) == (True, 503, "/p")
    assert asks.added_headers == (("path_prefix", "kept"),)
    assert asks.body == BodyCheck(7, True, True)
    assert [one.text for one in (*asks.include_headers, *asks.upstream_on_allow)] == ["x-a", "x-b"]
    assert providers["file"].format.labels == (("path_prefix", "%PROTOCOL%"),)
    assert providers["z"].short_ids
    tags = (CustomTag("log_format", TagSource.HEADER, "x-f", "d"),)
    assert found.defaults == MeshDefaults(
        ("file",), log_file="/dev/stdout", traced=True, spans=TracingDefaults(None, 5, tags),
        path_normalization="MERGE_SLASHES",
    )  # fmt: skip


def test_a_field_by_both_of_its_names_is_there_twice():
    (fault,) = read_mesh_config("accessLogFile: /a\naccess_log_file: /b").faults
    assert (fault.line, fault.message) == (2, "stands twice in the same mapping")


def test_a_provider_that_is_wrong_costs_only_itself():
    found = read_mesh_config(
        "extensionProviders:\n- {name: a, prometheus: {}}\n- {name: b, zipkin: {}}\n- {name: a, zipkin: {}}\n"
        "- {name: c, prometheus: {}}\n"
    )
    assert set(found.providers) == {"a", "c"}
    assert found.providers["a"].what == Prometheus()
    assert found.faulty == {"b"}
    assert found.defaults == MeshDefaults()
    assert [(one.line, one.field.partition(".")[0]) for one in found.faults] == [
        (3, "extensionProviders[1]"),
        (3, "extensionProviders[1]"),
        (4, "extensionProviders[2]"),
        (4, "extensionProviders[2]"),
        (4, "extensionProviders[2]"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b: c", "not YAML: mapping values are not allowed in this context"),
        ("a: 1\na: 2", "stands twice in the same mapping"),
        ("[]", "must be a mapping, is a list"),
        ("a: &a [1]\n" + "b: " + "[" * 200, "not YAML"),
        ("b: " + "[" * 2000, "nested deeper than 100 levels"),
    ],
)
def test_a_text_that_cannot_be_read_says_why_and_is_not_whole(text, message):
    found = read_mesh_config(text)
    assert not found.whole
    assert found.faults[0].message.startswith(message)


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("extensionProvider: []", "extensionProvider", "unknown field; did you mean extensionProviders?"),
        ("accessLogEncoding: XML", "", "accessLogEncoding must be one of TEXT, JSON"),
        ("enableTracing: 1", "enableTracing", "must be a boolean, is a number"),
        (
            "defaultProviders: {tracin: [a]}",
            "defaultProviders.tracin",
            "unknown field; did you mean tracing?",
        ),
        (
            "defaultConfig: {tracing: {sampling: 101}}",
            "defaultConfig.tracing.sampling",
            "a percentage is from 0 to 100",
        ),
        (
            "defaultConfig: {tracing: {customTags: {a: {}}}}",
            "defaultConfig.tracing.customTags.a",
            "needs one of literal, environment, header, formatter",
        ),
        (
            "defaultConfig: {tracing: {customTags: {a: {header: {}}}}}",
            "defaultConfig.tracing.customTags.a.header",
            "needs a name",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_field(text, field, message):
    assert [(one.field, one.message) for one in read_mesh_config(text).faults] == [(field, message)]


def test_defaults_that_are_wrong_cost_no_provider():
    found = read_mesh_config("accessLogEncoding: XML\nextensionProviders: [{name: a, prometheus: {}}]")
    assert found.defaults is None
    assert set(found.providers) == {"a"}


def test_there_is_a_bound_to_providers():
    many = "".join(f"- {{name: p{number}, prometheus: {{}}}}\n" for number in range(MOST_PROVIDERS + 5))
    found = read_mesh_config(f"extensionProviders:\n{many}")
    assert len(found.providers) == MOST_PROVIDERS
    assert [one.message for one in found.faults] == [f"more than {MOST_PROVIDERS} providers"]
