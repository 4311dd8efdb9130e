"""Series by which each alert fires, and others by which none does, as `promtool test rules` takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from tests.deploy.promql import ALERTS

DAY: Final = 86400
MINUTES: Final = 75
"""When it is looked: every `for` is over."""

Series = dict[str, str]

_OPENED = "istio_tcp_connections_opened_total"
_NO_IDENTITY = f'{_OPENED}{{reporter="destination",source_principal="unknown"}}'
_IDENTITY = f'{_OPENED}{{reporter="destination",source_principal="spiffe://x"}}'
_CHAIN, _ROOT = "citadel_server_cert_chain_expiry_timestamp", "citadel_server_root_cert_expiry_timestamp"

FIRING: Final[dict[str, list[Series]]] = {
    "ZtunnelCertificateNearExpiry": [
        {'ztunnel_certificate_expiry_seconds{instance="n1",identity="a"}': "3000-30x80"}
    ],
    "ZtunnelCertificatesFail": [{'ztunnel_certificates_failed_total{instance="n1"}': "0+1x80"}],
    "ZtunnelWorldStale": [{'ztunnel_control_plane_connected{instance="n1",type="wds"}': "0x80"}],
    "ZtunnelEnrolmentFails": [
        {'ztunnel_pods_pending{instance="n1",namespace="a",pod="b",reason="port taken"}': "1x80"}
    ],
    "ZtunnelStartMisses": [{'ztunnel_pod_start_misses_total{instance="n1"}': "0x70 1x10"}],
    "ZtunnelBudgetClosings": [{'ztunnel_hbone_calmed_total{instance="n1"}': "0x70 1+1x10"}],
    "ZtunnelPlaintextShare": [{_NO_IDENTITY: "0+30x80", _IDENTITY: "0+60x80"}],
    "ZtunnelStands": [
        {
            'ztunnel_stalls_total{instance="n1"}': "0x70 1x10",
            'ztunnel_internal_errors_total{instance="n1"}': "0x80",
        },
        {
            'ztunnel_stalls_total{instance="n1"}': "0x80",
            'ztunnel_internal_errors_total{instance="n1"}': "0x70 1x10",
        },
    ],
    "ZtunnelClusterStale": [{'ztunnel_kube_stale{instance="c1",kind="Pod"}': "1x80"}],
    "ZtunnelPushesSlow": [
        {
            'ztunnel_control_push_seconds_bucket{instance="c1",le="5"}': "0x80",
            'ztunnel_control_push_seconds_bucket{instance="c1",le="10"}': "0+60x80",
            'ztunnel_control_push_seconds_bucket{instance="c1",le="+Inf"}': "0+60x80",
        }
    ],
    "ZtunnelStatusFails": [
        {'ztunnel_control_status_writes_total{kind="Gateway",outcome="failed"}': "0+1x80"}
    ],
    "ZtunnelAuthorityNearExpiry": [
        {_ROOT: f"{20 * DAY}x80"},
        {f'{_CHAIN}{{instance="c1"}}': f"{20 * DAY}x80", f'{_ROOT}{{instance="c1"}}': f"{900 * DAY}x80"},
        {f'{_CHAIN}{{instance="c1"}}': f"{900 * DAY}x80", f'{_ROOT}{{instance="c1"}}': f"{20 * DAY}x80"},
    ],
    "ZtunnelAuthenticationFailures": [
        {'citadel_server_authentication_failure_count{instance="c1"}': "0+1x80"}
    ],
    "ZtunnelNoProxies": [{'pilot_xds{instance="c1"}': "0x80", 'pilot_xds{instance="c2"}': "0x80"}],
}
"""By alert, each by itself enough; a value for each minute, the last one again and again."""

QUIET: Final[Series] = {
    'ztunnel_certificate_expiry_seconds{instance="n1",identity="a"}': "40000x80",
    'ztunnel_certificates_failed_total{instance="n1"}': "2x80",
    'ztunnel_control_plane_connected{instance="n1",type="wds"}': "1x60 0x1 1x20",
    'ztunnel_pods_pending{instance="n1",namespace="a",pod="b",reason="port taken"}': "1x3 _x70",
    'ztunnel_pod_start_misses_total{instance="n1"}': "1x80",
    'ztunnel_hbone_calmed_total{instance="n1"}': "5x80",
    _NO_IDENTITY: "0+1x80",
    _IDENTITY: "0+60x80",
    'ztunnel_stalls_total{instance="n1"}': "1x80",
    'ztunnel_internal_errors_total{instance="n1"}': "1x80",
    'ztunnel_kube_stale{instance="c1",kind="Pod"}': "0x60 1x2 0x20",
    'ztunnel_control_push_seconds_bucket{instance="c1",le="1"}': "0+60x80",
    'ztunnel_control_push_seconds_bucket{instance="c1",le="+Inf"}': "0+60x80",
    'ztunnel_control_status_writes_total{kind="Gateway",outcome="failed"}': "3x80",
    f'{_CHAIN}{{instance="c1"}}': f"{300 * DAY}x80",
    f'{_ROOT}{{instance="c1"}}': f"{900 * DAY}x80",
    'citadel_server_authentication_failure_count{instance="c1"}': "4x80",
    'pilot_xds{instance="c1"}': "0x80",
    'pilot_xds{instance="c2"}': "3x80",
}
"""A mesh that is well, or was in trouble for a moment."""


def rule_tests(alerts: Path = ALERTS) -> dict[str, Any]:
    """The file of `promtool test rules`."""
    tests = [_test(series, [name]) for name, all_of in FIRING.items() for series in all_of]
    return {"rule_files": [str(alerts)], "evaluation_interval": "1m", "tests": [*tests, _test(QUIET, [])]}


def _test(series: Series, names: list[str]) -> dict[str, Any]:
    firing = [{"labels": f'{{alertname="{each}"}}', "value": 1} for each in names]
    return {
        "name": " ".join(names) or "all is well",
        "interval": "1m",
        "input_series": [{"series": each, "values": values} for each, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{MINUTES}m",
                "exp_samples": firing,
            }
        ],
    }
