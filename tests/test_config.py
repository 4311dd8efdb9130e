"""Settings come from flags, environment and mesh config, in this order, and every fault is told at once."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields
from ipaddress import IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.config import Settings, misspelt, read_settings
from ztunnel.errors import ConfigError
from ztunnel.model.address import Endpoint
from ztunnel.model.workload import SameNode

MESH = """
trustDomain: mesh.example
rootNamespace: mesh-root
sameNode: mtls
outboundTrafficPolicy: {mode: ALLOW_ANY}
defaultConfig:
  discoveryAddress: istiod.mesh-root.svc:15012
  proxyMetadata:
    SECRET_TTL: 12h
"""


def faults(flags=None, environment=None, mesh="") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_settings(flags or {}, environment or {}, mesh, "mesh.yaml")
    return [str(fault) for fault in caught.value.faults]


def test_without_any_source_the_defaults_are_those_of_istio():
    settings = read_settings({}, {})
    assert settings == Settings()
    assert settings.cluster == "Kubernetes"
    assert settings.trust_domain == settings.cluster_domain == "cluster.local"
    assert settings.secret_ttl_seconds == 86400
    assert settings.pool_max_streams == 100
    assert settings.pool_release_seconds == 300
    assert settings.stream_window_bytes == 4194304
    assert settings.session_window_bytes == 16777216
    assert settings.frame_bytes == 1048576
    assert settings.termination_deadline_seconds == 5
    assert (settings.keepalive, settings.keepalive_time_seconds, settings.keepalive_retries) == (True, 180, 9)
    assert (settings.log_format, settings.log_level) == ("plain", "info")
    assert settings.xds_address == settings.ca_address == ""


def test_ours_have_the_defaults_of_the_design():
    settings = read_settings({}, {})
    assert settings.same_node is SameNode.AUTO
    assert settings.root_namespace == "istio-system"
    assert settings.buffer_limit_bytes == 64 * 1024 * 1024
    assert settings.metrics_series_limit == 20_000
    assert settings.connect_timeout_seconds == 10
    assert settings.pins is None
    assert settings.metrics_address == Endpoint(IPv6Address("::"), 15020)


@pytest.mark.parametrize(
    ("flags", "environment", "mesh", "ttl"),
    [
        ({"secret_ttl_seconds": "1h"}, {"SECRET_TTL": "2h"}, MESH, 3600),
        ({"secret_ttl_seconds": None}, {"SECRET_TTL": "2h"}, MESH, 7200),
        ({}, {}, MESH, 43200),
        ({}, {}, "", 86400),
    ],
)
def test_a_flag_wins_over_the_environment_and_that_over_the_mesh_config(flags, environment, mesh, ttl):
    assert read_settings(flags, environment, mesh).secret_ttl_seconds == ttl


def test_the_mesh_config_has_istios_keys_and_ours():
    settings = read_settings({}, {}, MESH)
    assert settings.trust_domain == "mesh.example"
    assert settings.root_namespace == "mesh-root"
    assert settings.same_node is SameNode.MTLS
    assert settings.xds_address == "https://istiod.mesh-root.svc:15012"


def test_of_two_names_of_a_variable_the_first_counts():
    assert read_settings({}, {"RUST_LOG": "debug"}).log_level == "debug"
    assert (
        read_settings({}, {"RUST_LOG": "debug", "LOG_LEVEL": "warn,xds=trace"}).log_level == "warn,xds=trace"
    )
    assert read_settings({}, {"ISTIO_META_CLUSTER_ID": "c2"}).cluster == "c2"


@pytest.mark.parametrize(
    ("variable", "value", "accepted"),
    [
        ("SECRET_TTL", "24", "a duration"),
        ("SECRET_TTL", "", "a duration"),
        ("SECRET_TTL", "0s", "longer than zero"),
        ("SECRET_TTL", "-5s", "a duration"),
        ("POOL_MAX_STREAMS_PER_CONNECTION", "0", "from 1 to 1000"),
        ("POOL_MAX_STREAMS_PER_CONNECTION", "\u0661", "from 1 to 1000"),
        ("HTTP2_FRAME_SIZE", "1Gi", "from 16384 to 16777215"),
        ("IPV6_ENABLED", "yes", "true or false"),
        ("ZTUNNEL_TRACING_ENDPOINT", "collector:4318", "http://<host>:<port>"),
        ("ZTUNNEL_TRACING_SAMPLING", "101", "a number from 0 to 100"),
        ("ZTUNNEL_TRACING_SAMPLING", "nan", "a number from 0 to 100"),
        ("LOG_FORMAT", "xml", "plain or json"),
        ("LOG_LEVEL", "info,loud", "trace, debug, info"),
        ("TRUST_DOMAIN", "Cluster/Local", "lower-case"),
        ("XDS_ADDRESS", "ftp://x:1", "https://<host>:<port>"),
        ("ZTUNNEL_SAME_NODE", "off", "auto or direct or mtls"),
        ("ZTUNNEL_STATE_DIR", "state", "absolute"),
        ("ZTUNNEL_POD_NETNS", "/run/netns/{pod}", "{namespace} and {name}"),
        ("ZTUNNEL_BUFFER_LIMIT", "64MB", "64Ki"),
        ("ZTUNNEL_ADMIN_ADDRESS", "15000", "127.0.0.1:15000"),
        ("ZTUNNEL_NODE_CLIENTS", "none", "kubelet or node or all"),
        ("TERMINATION_GRACE_PERIOD_SECONDS", "30s", "from 1 to 86400"),
    ],
)
def test_a_wrong_value_is_told_with_its_name_and_what_is_accepted(variable, value, accepted):
    (fault,) = faults(environment={variable: value})
    assert fault.startswith(f"environment: {variable}: {value!r} is not ")
    assert accepted in fault


def test_all_faults_come_at_once_each_from_its_source():
    told = faults(
        {"node": "n1", "frame_bytes": "1", "nonsense": "x"},
        {"LOG_FORMAT": "xml"},
        "\ntrustDomain: A\nsameNode: no\n",
    )
    assert len(told) == 5
    assert told[0] == "command line: --nonsense: no such setting"
    assert any(line.startswith("command line: --frame: '1'") for line in told)
    assert any(line.startswith("environment: LOG_FORMAT:") for line in told)
    assert any(line.startswith("mesh.yaml:2: trustDomain: 'A'") for line in told)
    assert any(line.startswith("mesh.yaml:3: sameNode: 'no'") for line in told)


def test_a_mesh_config_that_cannot_be_read_is_a_fault_with_its_file():
    assert all(fault.startswith("mesh.yaml") for fault in faults(mesh="a: [\n"))


@pytest.mark.parametrize(("grace", "seconds"), [("30", 25), ("11", 6), ("10", 9), ("2", 1), ("1", 1)])
def test_the_grace_period_of_the_pod_gives_the_deadline(grace, seconds):
    assert (
        read_settings({}, {"TERMINATION_GRACE_PERIOD_SECONDS": grace}).termination_deadline_seconds == seconds
    )


def test_a_deadline_that_is_given_wins_over_the_grace_period():
    environment = {"TERMINATION_GRACE_PERIOD_SECONDS": "30", "CONNECTION_TERMINATION_DEADLINE": "7s"}
    assert read_settings({}, environment).termination_deadline_seconds == 7


def test_in_kubernetes_the_control_plane_is_istiod_unless_there_is_none_or_another():
    inside = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    istiod = "https://istiod.istio-system.svc:15012"
    assert read_settings({}, inside).xds_address == istiod
    assert read_settings({}, inside).ca_address == istiod
    assert read_settings({}, inside | {"XDS_ADDRESS": ""}).xds_address == ""
    assert read_settings({}, inside | {"ZTUNNEL_MANIFESTS": "/etc/mesh"}).xds_address == ""
    other = read_settings({}, inside | {"XDS_ADDRESS": "https://a:1", "CA_ADDRESS": "https://b:2"})
    assert (other.xds_address, other.ca_address) == ("https://a:1", "https://b:2")


def test_a_folder_of_manifests_and_a_control_plane_outside_exclude_each_other():
    (fault,) = faults(environment={"ZTUNNEL_MANIFESTS": "m", "XDS_ADDRESS": "https://a:1"})
    assert "exclude each other" in fault


def test_a_variable_that_is_nearly_one_of_ours_is_told():
    environment = {"ZTUNNEL_CONNECT_TIMOUT": "3", "ZTUNNEL_CONNECT_TIMEOUT": "4", "XDS_ADRESS": ""}
    others = (
        "ZTUNNEL_CONTROL_SERVICE_HOST",
        "ZTUNNEL_CONTROL_PORT",
        "ZTUNNEL_WORKER_THREADS",
        "ZTUNNEL_PROGRAM",
    )
    assert misspelt({**environment, **dict.fromkeys(others, "")}) == {
        "ZTUNNEL_CONNECT_TIMOUT": "ZTUNNEL_CONNECT_TIMEOUT"
    }


def test_a_token_is_not_shown():
    assert "very-secret" not in repr(read_settings({}, {"AUTH_TOKEN": "very-secret"}))


def test_flags_may_be_values_as_a_command_line_library_gives_them():
    settings = read_settings({"ipv6": False, "metrics_series_limit": 500, "manifests": Path("m")}, {})
    assert (settings.ipv6, settings.metrics_series_limit, settings.manifests) == (False, 500, Path("m"))


def test_every_setting_has_a_variable_of_its_own():
    variables = [
        name
        for one in fields(Settings)
        if "source" in one.metadata
        for name in one.metadata["source"].variables
    ]
    assert len(variables) == len(set(variables))
    assert all(name.isupper() for name in variables)


@given(
    st.dictionaries(st.sampled_from(["SECRET_TTL", "IPV6_ENABLED", "LOG_LEVEL", "XDS_ADDRESS"]), st.text()),
    st.text(),
)
def test_whatever_is_given_there_are_settings_or_faults(environment, mesh):
    with suppress(ConfigError):
        read_settings({}, environment, mesh)


def test_a_list_may_be_written_as_one_in_the_mesh_file_and_with_commas_elsewhere() -> None:
    aliases = ("old.example", "older.example")
    mesh = "trustDomainAliases: [old.example, older.example]"
    assert read_settings({}, {}, mesh).trust_domain_aliases == aliases
    given = {"ZTUNNEL_TRUST_DOMAIN_ALIASES": "old.example, older.example"}
    assert read_settings({}, given).trust_domain_aliases == aliases
    assert read_settings({}, {}).trust_domain_aliases == ()
    with pytest.raises(ConfigError, match="trustDomainAliases: 'OLD' is not a name"):
        read_settings({}, {}, "trustDomainAliases: [OLD]")
