"""Traffic policies are read with all their fields."""

import pytest

from tests.state.reading import read
from ztunnel.model.traffic import (
    Balance,
    Balancing,
    ClientTls,
    KeepAlive,
    Outlier,
    Pings,
    Pool,
    PortTraffic,
    RetryBudget,
    TlsMode,
    Traffic,
    Upgrade,
)
from ztunnel.state.traffic_policy import read_traffic_policy


def policy(text):
    ((found, unread), faults) = read(read_traffic_policy, f"  trafficPolicy: {text}", "s")
    return found, unread, faults


def test_a_pool_is_read():
    found, unread, faults = policy("""
    connectionPool:
      tcp: {maxConnections: 100, connectTimeout: 30ms, maxConnectionDuration: 1h, idleTimeout: 5s,
            tcpKeepalive: {probes: 3, time: 7200s, interval: 75s}}
      http: {http1MaxPendingRequests: 1, http2MaxRequests: 2, maxRequestsPerConnection: 3, maxRetries: 4,
             idleTimeout: 6s, h2UpgradePolicy: UPGRADE, useClientProtocol: true, maxConcurrentStreams: 5,
             http2KeepAlive: {interval: 30s, timeout: 5s}}
""")
    pool = Pool(
        100, 0.03, 3600, 5, KeepAlive(3, 7200, 75), 1, 2, 3, 4, 6, Upgrade.ALWAYS, True, 5, Pings(30, 5)
    )
    assert (found, unread, faults) == (PortTraffic(Traffic(pool=pool)), (), [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", Outlier()),
        ("{consecutive5xxErrors: 7, interval: 5m, baseEjectionTime: 15m, maxEjectionPercent: 100}",
         Outlier(7, interval_seconds=300, base_seconds=900, most_percent=100)),
        ("{consecutiveErrors: 1}", Outlier(gateway_errors=1)),
        ("{consecutiveGatewayErrors: 3, consecutive5xxErrors: 0, splitExternalLocalOriginErrors: true, "
         "consecutiveLocalOriginFailures: 2, minHealthPercent: 50}",
         Outlier(0, 3, 2, True, least_healthy_percent=50)),
        ("{outlierDetectionHttpErrorCodes: [429, 503, 429]}", Outlier(codes=(429, 503))),
    ],
)  # fmt: skip
def test_outliers_are_read(text, expected):
    assert policy(f"{{outlierDetection: {text}}}") == (PortTraffic(Traffic(outlier=expected)), (), [])


def test_tls_and_a_budget_are_read():
    found, _, faults = policy(
        "{tls: {mode: MUTUAL, clientCertificate: c, privateKey: k, caCertificates: r, caCrl: l, sni: s, "
        "subjectAltNames: [a]}, retryBudget: {percent: 25.5, minRetryConcurrency: 1}}"
    )
    tls = ClientTls(TlsMode.MUTUAL, "c", "k", "r", "l", "", ("a",), "s")
    assert (found, faults) == (PortTraffic(Traffic(tls=tls, budget=RetryBudget(25.5, 1))), [])
    assert policy("{retryBudget: {}}")[0].common.budget == RetryBudget()
    assert policy("{retryBudget: {minRetryConcurrency: 0}}")[0].common.budget == RetryBudget()
    assert policy("{retryBudget: {budgetInterval: 10s}}")[0].common.budget == RetryBudget(seconds=10)


@pytest.mark.parametrize(("text", "expected"), [
    ("{}", None), ("{timeout: 1s}", None), ("{interval: 1s}", Pings(1)),
    ("{interval: 1ms, timeout: 2s}", Pings(0.001, 2)),
])  # fmt: skip
def test_without_an_interval_there_are_no_pings(text, expected):
    found, _, faults = policy(f"{{connectionPool: {{http: {{http2KeepAlive: {text}}}}}}}")
    assert (found.common.pool, faults) == (Pool(pings=expected), [])


ZONES = "loadBalancer: {simple: RANDOM, zoneAwareLbSetting: {%s}}"


@pytest.mark.parametrize(("text", "named"), [
    (ZONES % "enabled: true, minClusterSize: 3, failover: [{from: a, to: b}], failoverPriority: [c]", True),
    (ZONES % "", True),
    (ZONES % "enabled: false", False),
    (f"portLevelSettings: [{{port: {{number: 80}}, {ZONES % ''}}}], loadBalancer: {{simple: RANDOM}}", True),
])  # fmt: skip
def test_what_has_no_effect_is_named_and_costs_nothing_else(text, named):
    found, unread, faults = policy(f"{{{text}}}")
    assert (unread, faults) == (("loadBalancer.zoneAwareLbSetting",) * named, [])
    assert found.common == Traffic(Balancing(Balance.RANDOM))


def test_ports_have_their_own_and_what_is_not_acted_on_is_named():
    found, unread, faults = policy(
        "{loadBalancer: {simple: RANDOM}, portLevelSettings: [{port: {number: 81}}, "
        "{port: {number: 80}, tls: {mode: SIMPLE}}], tunnel: {protocol: CONNECT}, "
        "proxyProtocol: {version: V2}}"
    )
    assert faults == []
    assert unread == ("proxyProtocol", "tunnel")
    assert found.common == Traffic(Balancing(Balance.RANDOM), unsupported=unread)
    tls = ClientTls(TlsMode.SIMPLE)
    assert found.ports == (
        (80, Traffic(tls=tls, unsupported=unread)),
        (81, Traffic(unsupported=unread)),
    )


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("{loadbalancer: {}}", ["s.trafficPolicy.loadbalancer"]),
        ("{connectionPool: {}}", ["s.trafficPolicy.connectionPool"]),
        ("{connectionPool: {tcp: {maxConnections: -1}}}",
         ["s.trafficPolicy.connectionPool.tcp.maxConnections"]),
        ("{connectionPool: {http: {h2UpgradePolicy: YES}}}",
         ["s.trafficPolicy.connectionPool.http.h2UpgradePolicy"]),
        ("{outlierDetection: {interval: 0s}}", ["s.trafficPolicy.outlierDetection.interval"]),
        ("{outlierDetection: {maxEjectionPercent: 101}}",
         ["s.trafficPolicy.outlierDetection.maxEjectionPercent"]),
        ("{tls: {mode: MUTUAL}}", ["s.trafficPolicy.tls"]),
        ("{tls: {mode: SIMPLE, credentialName: a, caCertificates: b}}", ["s.trafficPolicy.tls"]),
        ("{tls: {mode: ISTIO_MUTUAL, privateKey: a}}", ["s.trafficPolicy.tls"]),
        ("{tls: {mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: [b]}}", ["s.trafficPolicy.tls"]),
        ("{tls: {mode: NONE}}", ["s.trafficPolicy.tls.mode"]),
        ("{retryBudget: {percent: 101}}", ["s.trafficPolicy.retryBudget.percent"]),
        ("{retryBudget: {budgetInterval: 10}}", ["s.trafficPolicy.retryBudget.budgetInterval"]),
        ("{outlierDetection: {outlierDetectionHttpErrorCodes: [503, 99, 600]}}",
         [f"s.trafficPolicy.outlierDetection.outlierDetectionHttpErrorCodes[{at}]" for at in (1, 2)]),
        ("{connectionPool: {http: {http2KeepAlive: {interval: 0s}}}}",
         ["s.trafficPolicy.connectionPool.http.http2KeepAlive.interval"]),
        ("{loadBalancer: {zoneAwareLbSetting: {minClusterSize: 0}}}",
         ["s.trafficPolicy.loadBalancer.zoneAwareLbSetting"]),
        ("{loadBalancer: {zoneAwareLbSetting: {failover: [{from: a}]}}}",
         ["s.trafficPolicy.loadBalancer.zoneAwareLbSetting.failover[0]"]),
        ("{portLevelSettings: [{}]}", ["s.trafficPolicy.portLevelSettings[0]"]),
        ("{portLevelSettings: [{port: {number: 80}}, {port: {number: 80}}]}",
         ["s.trafficPolicy.portLevelSettings[1].port.number"]),
        ("{portLevelSettings: [{port: {number: 80}, retryBudget: {}}]}",
         ["s.trafficPolicy.portLevelSettings[0].retryBudget"]),
    ],
)  # fmt: skip
def test_what_is_wrong_has_a_fault(text, fields):
    assert policy(text)[2] == fields


def test_nothing_is_said_where_there_is_none():
    assert read(read_traffic_policy, "  {}", "s") == ((PortTraffic(), ()), [])
