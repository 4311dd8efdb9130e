"""Traffic policies are read with all their fields."""

import pytest

from tests.state.reading import read
from ztunnel.model.traffic import (
    Balance,
    Balancing,
    ClientTls,
    KeepAlive,
    Outlier,
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
             idleTimeout: 6s, h2UpgradePolicy: UPGRADE, useClientProtocol: true, maxConcurrentStreams: 5}
""")
    pool = Pool(100, 0.03, 3600, 5, KeepAlive(3, 7200, 75), 1, 2, 3, 4, 6, Upgrade.ALWAYS, True, 5)
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
