"""Traffic policies as networking.istio.io/v1's DestinationRule has them: TrafficPolicy and what is in it.

What istiod's validation refuses is refused here (istio/istio pkg/config/validation: validateTrafficPolicy and
those that it calls). `tunnel` and `proxyProtocol` are read by name only: they refuse; `zoneAwareLbSetting` is
checked, and has no effect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from ztunnel.model.traffic import (
    NO_TRAFFIC,
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
from ztunnel.state.balancing import ZONE_AWARE, read_balancing
from ztunnel.state.duration import read_duration
from ztunnel.state.field import Field
from ztunnel.state.meta import read_choice, read_port
from ztunnel.state.numbers import read_count, read_percent, read_share

_PARTS: Final = ("connectionPool", "loadBalancer", "outlierDetection", "tls")
_POLICY: Final = (*_PARTS, "portLevelSettings", "proxyProtocol", "retryBudget", "tunnel")
_TLS: Final = (
    "caCertificates", "caCrl", "clientCertificate", "credentialName", "insecureSkipVerify", "mode",
    "privateKey", "sni", "subjectAltNames",
)  # fmt: skip
_OUTLIER: Final = (
    "baseEjectionTime", "consecutive5xxErrors", "consecutiveErrors", "consecutiveGatewayErrors",
    "consecutiveLocalOriginFailures", "interval", "maxEjectionPercent", "minHealthPercent",
    "outlierDetectionHttpErrorCodes", "splitExternalLocalOriginErrors",
)  # fmt: skip
_HTTP: Final = (
    "h2UpgradePolicy", "http1MaxPendingRequests", "http2KeepAlive", "http2MaxRequests", "idleTimeout",
    "maxConcurrentStreams", "maxRequestsPerConnection", "maxRetries", "useClientProtocol",
)  # fmt: skip
_TCP: Final = ("connectTimeout", "idleTimeout", "maxConnectionDuration", "maxConnections", "tcpKeepalive")
_UPGRADES: Final = {
    "DEFAULT": Upgrade.DEFAULT,
    "DO_NOT_UPGRADE": Upgrade.NEVER,
    "UPGRADE": Upgrade.ALWAYS,
}
TRAFFIC_FIELDS: Final = (*_POLICY, *_OUTLIER, *_HTTP, *_TCP)
_BASELINE: Final = ("connectionPool", "outlierDetection")
ZONES: Final = f"loadBalancer.{ZONE_AWARE}"
_MODES: Final = {mode.name: mode for mode in TlsMode}


def read_traffic_policy(parent: Field) -> tuple[PortTraffic, tuple[str, ...]]:
    """`trafficPolicy` of a rule or subset; and the names of those of its fields that are not acted on, first
    those that refuse."""
    place = parent.sub("trafficPolicy")
    if place is None:
        return PortTraffic(), ()
    place.only(_POLICY)
    unread = tuple(name for name in ("proxyProtocol", "tunnel") if place.sub(name) is not None)
    ports = tuple((port, replace(one, unsupported=unread)) for port, one in sorted(_ports(place)))
    zones = any(_has_zones(one) for one in (place, *place.each("portLevelSettings")))
    return PortTraffic(replace(_traffic(place), unsupported=unread), ports), (*unread, *[ZONES] * zones)


def read_baseline(root: Field) -> tuple[Traffic, tuple[str, ...]]:
    """MeshConfig's `defaultTrafficPolicy`, of which Istio takes these two over (istio/istio#60664); and the
    names of those of its fields that are not acted on."""
    place = root.sub("defaultTrafficPolicy")
    if place is None:
        return NO_TRAFFIC, ()
    place.only(_POLICY)
    pool, outlier = (place.sub(name) for name in _BASELINE)
    made = Traffic(
        pool=_pool(pool) if pool is not None else None,
        outlier=_outlier(outlier) if outlier is not None else None,
    )
    others = (name for name in _POLICY if name not in _BASELINE and place.sub(name) is not None)
    return made, tuple(f"defaultTrafficPolicy.{name}" for name in others)


def _has_zones(place: Field) -> bool:
    """Whether zone-aware balancing is asked for."""
    balancer = place.sub("loadBalancer")
    zones = balancer.sub(ZONE_AWARE) if balancer is not None else None
    return zones is not None and (zones.sub("enabled") is None or zones.flag("enabled"))


def _ports(place: Field) -> Iterator[tuple[int, Traffic]]:
    seen = set[int]()
    for one in place.each("portLevelSettings"):
        one.only((*_PARTS, "port"))
        below = one.sub("port")
        if below is not None:
            below.only(["number"])
        number = below.sub("number") if below is not None else None
        if number is None:
            one.fault("port.number is missing")
            continue
        port = read_port(number)
        if port in seen:
            number.fault(f"port {port} stands here twice")
        else:
            seen.add(port)
            yield port, _traffic(one)


def _traffic(place: Field) -> Traffic:
    balancer, pool, outlier = (
        place.sub("loadBalancer"),
        place.sub("connectionPool"),
        place.sub("outlierDetection"),
    )
    tls, budget = place.sub("tls"), place.sub("retryBudget")
    return Traffic(
        read_balancing(balancer) if balancer is not None else None,
        _pool(pool) if pool is not None else None,
        _outlier(outlier) if outlier is not None else None,
        _tls(tls) if tls is not None else None,
        _budget(budget) if budget is not None else None,
    )


def _pool(place: Field) -> Pool:
    place.only(["http", "tcp"])
    tcp, http = place.sub("tcp"), place.sub("http")
    if tcp is None and http is None:
        place.fault("needs tcp or http")
    if tcp is not None:
        tcp.only(_TCP)
    if http is not None:
        http.only(_HTTP)
    alive = tcp.sub("tcpKeepalive") if tcp is not None else None
    pings = http.sub("http2KeepAlive") if http is not None else None
    upgrade = read_choice(http, "h2UpgradePolicy", *_UPGRADES) if http is not None else ""
    return Pool(
        read_count(tcp, "maxConnections"),
        _seconds(tcp, "connectTimeout"),
        _seconds(tcp, "maxConnectionDuration"),
        _seconds(tcp, "idleTimeout"),
        _keep_alive(alive) if alive is not None else None,
        read_count(http, "http1MaxPendingRequests"),
        read_count(http, "http2MaxRequests"),
        read_count(http, "maxRequestsPerConnection"),
        read_count(http, "maxRetries"),
        _seconds(http, "idleTimeout"),
        _UPGRADES.get(upgrade, Upgrade.DEFAULT),
        http.flag("useClientProtocol") if http is not None else False,
        read_count(http, "maxConcurrentStreams"),
        _pings(pings) if pings is not None else None,
    )


def _seconds(place: Field | None, name: str) -> float:
    return (read_duration(place, name) or 0.0) if place is not None else 0.0


def _keep_alive(place: Field) -> KeepAlive:
    place.only(["interval", "probes", "time"])
    return KeepAlive(read_count(place, "probes"), _seconds(place, "time"), _seconds(place, "interval"))


def _pings(place: Field) -> Pings | None:
    """None: without an interval there are none (Envoy's KeepaliveSettings)."""
    place.only(["interval", "timeout"])
    every, within = (read_duration(place, name, 0.001) for name in ("interval", "timeout"))
    if every is None:
        return None
    return Pings(every) if within is None else Pings(every, within)


def _codes(place: Field) -> tuple[int, ...]:
    found = set[int]()
    for one in place.each("outlierDetectionHttpErrorCodes"):
        code = one.as_number()
        if code is not None and not 100 <= code < 600:
            one.fault("a status of HTTP is from 100 to 599")
        elif code is not None:
            found.add(code)
    return tuple(sorted(found))


def _outlier(place: Field) -> Outlier:
    """The deprecated `consecutiveErrors` counts what `consecutiveGatewayErrors` does (istio/istio
    pilot/pkg/networking/core/cluster_traffic_policy.go applyOutlierDetection)."""
    place.only(_OUTLIER)
    default = Outlier()
    gateway = read_count(place, "consecutiveGatewayErrors", read_count(place, "consecutiveErrors"))
    interval = read_duration(place, "interval", 0.001)
    base = read_duration(place, "baseEjectionTime", 0.001)
    return Outlier(
        read_count(place, "consecutive5xxErrors", default.server_errors),
        gateway,
        read_count(place, "consecutiveLocalOriginFailures", default.local),
        place.flag("splitExternalLocalOriginErrors"),
        default.interval_seconds if interval is None else interval,
        default.base_seconds if base is None else base,
        read_percent(place, "maxEjectionPercent", default.most_percent) or default.most_percent,
        read_percent(place, "minHealthPercent", default.least_healthy_percent),
        _codes(place),
    )


def _tls(place: Field) -> ClientTls:
    place.only(_TLS)
    found = ClientTls(
        _MODES.get(read_choice(place, "mode", *_MODES), TlsMode.DISABLE),
        place.text("clientCertificate"),
        place.text("privateKey"),
        place.text("caCertificates"),
        place.text("caCrl"),
        place.text("credentialName"),
        tuple(one.as_text() for one in place.each("subjectAltNames")),
        place.text("sni"),
        place.flag("insecureSkipVerify"),
    )
    files = found.certificate or found.key or found.roots
    if found.mode is TlsMode.MUTUAL and not found.credential and not (found.certificate and found.key):
        place.fault("mode MUTUAL needs a clientCertificate and a privateKey, or a credentialName")
    if found.credential and files:
        place.fault("credentialName and paths of files exclude each other")
    if found.mode is TlsMode.ISTIO_MUTUAL and (files or found.credential):
        place.fault("mode ISTIO_MUTUAL has the certificates of the mesh: none can be given")
    if found.skip_verify and (found.roots or found.subject_alt_names):
        place.fault("insecureSkipVerify verifies nothing: caCertificates and subjectAltNames have no meaning")
    return found


def _budget(place: Field) -> RetryBudget:
    """A concurrency of 0 is none that is said (istio/istio cluster_traffic_policy.go applyRetryBudget)."""
    place.only(["budgetInterval", "minRetryConcurrency", "percent"])
    default = RetryBudget()
    return RetryBudget(
        read_share(place, "percent", default.percent),
        read_count(place, "minRetryConcurrency") or default.least,
        _seconds(place, "budgetInterval"),
    )
