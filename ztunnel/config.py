"""The settings of a node proxy: flag over environment over mesh config file over default.

Names and defaults are those of Istio's ztunnel where they mean the same (ztunnel src/config.rs); ours start
with `ZTUNNEL_`. A flag is the field's name with dashes and without its unit: `--secret-ttl`. In the mesh
config file every variable may stand under `defaultConfig.proxyMetadata`, as in Istio.
"""

# ruff: noqa: RUF009 (`_setting` makes a dataclass field)

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any, NamedTuple

from ztunnel import values
from ztunnel.environment import read_headers, read_metadata
from ztunnel.errors import ConfigError, Fault
from ztunnel.mesh_file import Given, MeshFile
from ztunnel.model.address import Endpoint
from ztunnel.model.workload import SameNode
from ztunnel.values import Parse

_ISTIOD = "https://istiod.istio-system.svc:15012"
_SERVED_AS = (
    "ztunnel-control.ztunnel-system.svc",
    "ztunnel-control.ztunnel-system.svc.cluster.local",
    "ztunnel-control.ztunnel-system",
    "localhost",
)

_NEARLY = 0.9
"""Of `difflib`: a letter or two of a name."""

_WINDOW = values.bytes_from(65535, 2**31 - 1)
_SPELLING = values.one_of("BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES")
_CLIENTS = values.one_of("kubelet", "node", "all")


class Connect(StrEnum):
    """When connect() returns: once the far end has answered, with what that said, or at once, and what cannot
    be reached is told by a reset."""

    DEFERRED = "deferred"
    IMMEDIATE = "immediate"


class _Source(NamedTuple):
    """Where a setting comes from: environment variables, of which the first set counts; a mesh config key."""

    variables: tuple[str, ...]
    parse: Parse
    mesh: str


def _setting(variables: str, parse: Parse, default: object, mesh: str = "", shown: bool = True) -> Any:
    source = _Source(tuple(variables.split()), parse, mesh)
    return field(default=default, repr=shown, metadata={"source": source})


class StrictStart(StrEnum):
    """Which pods' processes may not call anybody before the pod is enrolled, or known not to be in the mesh:
    none, those that the control plane has named as opted in, or all."""

    OFF = "off"
    OPTED_IN = "optedIn"
    ALL = "all"


class PodSource(StrEnum):
    """Who says which pods of the node are to be served, and has their traffic sent to us: the control plane
    and programs of ours, or Istio's CNI agent and its rules (ZDS)."""

    KUBELET = "kubelet"
    ZDS = "zds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. Sizes in bytes, durations in seconds.

    Attributes:
        node: our node; workloads that run there are ours.
        auth_token: a path, or the token itself; not shown by `repr`.
        xds_address, ca_address: the control plane outside; empty for none, then `manifests` says what the
            mesh is.
        termination_deadline_seconds: how long connections may go on once we have to stop.
        manifests: a folder of manifests, of which a control plane of our own in this process makes the mesh.
        root_ca_dir: a folder with the operator's CA, as Istio's `cacerts`; None for one of our own, which is
            kept in `state_dir`.
        state_dir: what has to survive a restart: the key of our own authority.
        daemon_set: `namespace/name` of the DaemonSet that runs this proxy: where that is deleted, pods are
            let go. Empty: they stay captured for a successor, until `ztunnel detach`.
        run_dir: where a proxy is found by its successor, and by `ztunnel detach`; the host's, not a
            container's own.
        hold_seconds: how long new connections wait in the holder for the next proxy.
        pins: where our programs and maps are pinned; None is `/sys/fs/bpf/ztunnel/<node>`.
        load_programs: compile and load our programs where those that are pinned are not current; without,
            `ztunnel load` does it before.
        pod_source: where pods come from; where INPOD_UDS or INPOD_ENABLED is set, as for Istio's ztunnel,
            from the agent.
        inpod_uds: the agent's socket.
        inpod_port_reuse: whether another proxy may listen beside us in a pod, as in an upgrade.
        packet_mark: what the agent's rules know our packets by.
        dns_capture: whether the agent's rules send what pods ask of DNS to us.
        resolv_conf: whose name servers are asked then.
        pod_netns: where the network namespace of a pod is, with `{namespace}` and `{name}`; empty: find them
            through /proc and the cgroups of kubelet's pods.
        pod_logs: where the kubelet makes the log directories of pods, which say whose its cgroups are
            (`podLogsDir` of its configuration).
        strict_start: which pods have to wait until they are enrolled.
        node_clients: whose connections from the node itself reach pods without policy.
        buffer_limit_bytes: what may be held for applications that do not read, on all connections together;
            from three quarters of it on, the pod and peer that hold the most get no new ones, and beyond it
            their newest are ended.
        connect: when an application's connect() into the mesh returns.
        connect_timeout_seconds: for one connection, TLS included where there is some. Istio's ztunnel: 10 s.
        ping_interval_seconds, ping_timeout_seconds: how often a session's peer is asked whether it is there,
            and when it is gone; Istio's ztunnel: 10 s, 20 s.
        half_closed_seconds: of silence until an application that has closed is asked whether it is there; its
            kernel forgets it after 60 s (`net.ipv4.tcp_fin_timeout`).
        xds_root_ca, ca_root_ca: a path, `SYSTEM`, or PEM certificates.
        xds_alternative, ca_alternative: another name that the control plane's certificate may be for.
        instance_ip, pod_name, pod_namespace, proxy_metadata: what a control plane is told about us.
        xds_headers, ca_headers: metadata of each call; not shown by `repr`, as they may be secret.
        grpc_address, monitoring_address: of a control plane, for node proxies and for metrics.
        kubeconfig: of a control plane outside the cluster that it is for.
        node_taint: the key of a taint that is taken off nodes whose proxy is ready; empty: none is.
        mesh_config_map: the ConfigMap, `namespace/name`, with the mesh config; empty: `ztunnel-mesh` of the
            control plane's namespace.
        adopt: take over what an istiod has written: status, and the ConfigMap of the roots.
        waypoint: what waypoints are made of (`control/waypoints/deployment.py: read_template`, JSON); empty:
            none are made for Gateways.
        show_enrolment: write on pods that they are in the mesh.
        token_file: of a control plane over a folder: who may call (`ca/token.py`).
        signer_name, signer_root: of a control plane: a signer of the Kubernetes CSR API that signs for
            workloads in the place of its own authority, and the roots of what that signs, a path or PEM
            certificates.
        trusted_accounts: `namespace/name`: service accounts of node proxies, which may have certificates
            for the pods on their node; a token file's nodes are of the first.
        jwks_blocked: addresses that a control plane does not ask for the keys of issuers, beside its own
            machine's, those of links, and where clouds have their metadata.
        jwks_allowed: of all these, those that it asks all the same.
        jwks_root_ca: a file with roots that it trusts beside the system's when it asks.
        jwks_refresh_seconds: about so long after they have come it asks for them again.
        serving_names: DNS names and addresses of a control plane's certificate.
    """

    node: str = _setting("NODE_NAME", values.text, "")
    cluster: str = _setting("CLUSTER_ID ISTIO_META_CLUSTER_ID", values.text, "Kubernetes")
    cluster_domain: str = _setting("CLUSTER_DOMAIN", values.name, "cluster.local")
    trust_domain: str = _setting("TRUST_DOMAIN", values.name, "cluster.local", "trustDomain")
    trust_domain_aliases: tuple[str, ...] = _setting(
        "ZTUNNEL_TRUST_DOMAIN_ALIASES", values.names, (), "trustDomainAliases"
    )
    network: str = _setting("NETWORK", values.text, "")
    root_namespace: str = _setting("ZTUNNEL_ROOT_NAMESPACE", values.name, "istio-system", "rootNamespace")
    xds_address: str = _setting("XDS_ADDRESS", values.address, "", "defaultConfig.discoveryAddress")
    xds_root_ca: str = _setting("XDS_ROOT_CA", values.text, "./var/run/secrets/istio/root-cert.pem")
    xds_alternative: str = _setting("ALT_XDS_HOSTNAME", values.host, "")
    ca_address: str = _setting("CA_ADDRESS", values.address, "")
    ca_root_ca: str = _setting("CA_ROOT_CA", values.text, "./var/run/secrets/istio/root-cert.pem")
    ca_alternative: str = _setting("ALT_CA_HOSTNAME", values.host, "")
    auth_token: str = _setting("AUTH_TOKEN", values.text, "./var/run/secrets/tokens/istio-token", shown=False)
    secret_ttl_seconds: float = _setting("SECRET_TTL", values.positive_duration, 86400.0)
    pool_max_streams: int = _setting("POOL_MAX_STREAMS_PER_CONNECTION", values.number(1, 1000), 100)
    pool_release_seconds: float = _setting("POOL_UNUSED_RELEASE_TIMEOUT", values.positive_duration, 300.0)
    stream_window_bytes: int = _setting("HTTP2_STREAM_WINDOW_SIZE", _WINDOW, 4 << 20)
    session_window_bytes: int = _setting("HTTP2_CONNECTION_WINDOW_SIZE", _WINDOW, 16 << 20)
    frame_bytes: int = _setting("HTTP2_FRAME_SIZE", values.bytes_from(16384, 2**24 - 1), 1 << 20)
    termination_deadline_seconds: float = _setting("CONNECTION_TERMINATION_DEADLINE", values.duration, 5.0)
    keepalive: bool = _setting("KEEPALIVE_ENABLED", values.flag, True)
    keepalive_time_seconds: float = _setting("KEEPALIVE_TIME", values.keepalive_duration, 180.0)
    keepalive_interval_seconds: float = _setting("KEEPALIVE_INTERVAL", values.keepalive_duration, 180.0)
    keepalive_retries: int = _setting("KEEPALIVE_RETRIES", values.number(1, 127), 9)
    ipv6: bool = _setting("IPV6_ENABLED", values.flag, True)
    log_format: str = _setting("LOG_FORMAT", values.one_of("plain", "json"), "plain")
    log_level: str = _setting("LOG_LEVEL RUST_LOG", values.levels, "info")
    access_log: bool = _setting("ZTUNNEL_ACCESS_LOG", values.flag, True)
    access_log_format: str = _setting("ZTUNNEL_ACCESS_LOG_FORMAT", values.text, "", "accessLogFormat")
    tracing_endpoint: str = _setting("ZTUNNEL_TRACING_ENDPOINT", values.collector, "")
    tracing_percent: float = _setting("ZTUNNEL_TRACING_SAMPLING", values.percentage, 1.0)
    tells_identity: bool = _setting("ZTUNNEL_XFCC", values.flag, False)
    path_normalization: str = _setting("ZTUNNEL_PATH_NORMALIZATION", _SPELLING, "BASE")
    request_head_seconds: float = _setting("ZTUNNEL_REQUEST_HEAD_TIMEOUT", values.positive_duration, 10.0)
    stream_idle_seconds: float = _setting("ZTUNNEL_STREAM_IDLE_TIMEOUT", values.positive_duration, 300.0)
    trusted_proxies: int = _setting("ZTUNNEL_TRUSTED_PROXIES", values.number(0, 100), 0)
    manifests: Path | None = _setting("ZTUNNEL_MANIFESTS", values.maybe_path, None)
    root_ca_dir: Path | None = _setting("ROOT_CA_DIR", values.maybe_path, None)
    state_dir: Path = _setting("ZTUNNEL_STATE_DIR", values.path, Path("/var/lib/ztunnel"))
    cache_dir: Path = _setting("ZTUNNEL_CACHE_DIR", values.path, Path("/var/cache/ztunnel"))
    daemon_set: str = _setting("ZTUNNEL_DAEMON_SET", values.object_name, "")
    run_dir: Path = _setting("ZTUNNEL_RUN_DIR", values.path, Path("/var/run/ztunnel"))
    hold_seconds: float = _setting("ZTUNNEL_HOLD_TIMEOUT", values.duration, 60.0)
    pins: Path | None = _setting("ZTUNNEL_PINS", values.maybe_path, None)
    load_programs: bool = _setting("ZTUNNEL_LOAD_PROGRAMS", values.flag, True)
    pod_source: PodSource = _setting("ZTUNNEL_POD_SOURCE", values.member(PodSource), PodSource.KUBELET)
    inpod_uds: Path = _setting("INPOD_UDS", values.path, Path("/var/run/ztunnel/ztunnel.sock"))
    inpod_port_reuse: bool = _setting("INPOD_PORT_REUSE", values.flag, True)
    packet_mark: int = _setting("PACKET_MARK", values.number(1, 2**32 - 1), 1337)
    dns_capture: bool = _setting("ISTIO_META_DNS_CAPTURE", values.flag, True)
    resolv_conf: Path = _setting("ZTUNNEL_RESOLV_CONF", values.path, Path("/etc/resolv.conf"))
    pod_netns: str = _setting("ZTUNNEL_POD_NETNS", values.namespace_path, "")
    pod_logs: Path = _setting("ZTUNNEL_POD_LOGS", values.path, Path("/var/log/pods"))
    same_node: SameNode = _setting("ZTUNNEL_SAME_NODE", values.member(SameNode), SameNode.AUTO, "sameNode")
    strict_start: StrictStart = _setting(
        "ZTUNNEL_STRICT_START", values.member(StrictStart), StrictStart.OPTED_IN, "strictStart"
    )
    node_clients: str = _setting("ZTUNNEL_NODE_CLIENTS", _CLIENTS, "kubelet", "nodeClients")
    admin_address: Endpoint = _setting(
        "ZTUNNEL_ADMIN_ADDRESS", values.listen, Endpoint(IPv4Address("127.0.0.1"), 15000)
    )
    metrics_address: Endpoint = _setting(
        "ZTUNNEL_METRICS_ADDRESS", values.listen, Endpoint(IPv6Address("::"), 15020)
    )
    readiness_address: Endpoint = _setting(
        "ZTUNNEL_READINESS_ADDRESS", values.listen, Endpoint(IPv6Address("::"), 15021)
    )
    grpc_address: Endpoint = _setting(
        "ZTUNNEL_GRPC_ADDRESS", values.listen, Endpoint(IPv6Address("::"), 15012)
    )
    monitoring_address: Endpoint = _setting(
        "ZTUNNEL_MONITORING_ADDRESS", values.listen, Endpoint(IPv6Address("::"), 15014)
    )
    token_file: Path | None = _setting("ZTUNNEL_TOKEN_FILE", values.maybe_path, None)
    kubeconfig: str = _setting("KUBECONFIG", values.text, "")
    mesh_config_map: str = _setting("ZTUNNEL_MESH_CONFIG_MAP", values.object_name, "")
    adopt: bool = _setting("ZTUNNEL_ADOPT", values.flag, False)
    waypoint: str = _setting("ZTUNNEL_WAYPOINT", values.text, "")
    show_enrolment: bool = _setting("ZTUNNEL_SHOW_ENROLMENT", values.flag, True)
    node_taint: str = _setting("ZTUNNEL_NODE_TAINT", values.label_key, "")
    signer_name: str = _setting("ZTUNNEL_SIGNER_NAME", values.signer, "")
    signer_root: str = _setting("ZTUNNEL_SIGNER_ROOT", values.text, "")
    trusted_accounts: tuple[str, ...] = _setting(
        "CA_TRUSTED_NODE_ACCOUNTS", values.accounts, ("ztunnel-system/ztunnel", "istio-system/ztunnel")
    )
    jwks_blocked: tuple[IPv4Network | IPv6Network, ...] = _setting(
        "BLOCKED_CIDRS_IN_JWKS_URIS", values.networks, ()
    )
    jwks_allowed: tuple[IPv4Network | IPv6Network, ...] = _setting(
        "ZTUNNEL_JWKS_ALLOWED", values.networks, ()
    )
    jwks_root_ca: Path | None = _setting("ZTUNNEL_JWKS_ROOT_CA", values.maybe_path, None)
    jwks_refresh_seconds: float = _setting(
        "PILOT_JWT_PUB_KEY_REFRESH_INTERVAL", values.positive_duration, 1200.0
    )
    serving_names: tuple[str, ...] = _setting("ZTUNNEL_SERVING_NAMES", values.hosts, _SERVED_AS)
    metrics_series_limit: int = _setting("ZTUNNEL_METRICS_SERIES_LIMIT", values.number(100, 10**6), 20_000)
    buffer_limit_bytes: int = _setting("ZTUNNEL_BUFFER_LIMIT", values.bytes_from(1 << 20, 1 << 40), 64 << 20)
    connect: Connect = _setting("ZTUNNEL_CONNECT", values.member(Connect), Connect.DEFERRED)
    connect_timeout_seconds: float = _setting("ZTUNNEL_CONNECT_TIMEOUT", values.positive_duration, 10.0)
    ping_interval_seconds: float = _setting("ZTUNNEL_PING_INTERVAL", values.positive_duration, 10.0)
    ping_timeout_seconds: float = _setting("ZTUNNEL_PING_TIMEOUT", values.positive_duration, 20.0)
    half_closed_seconds: float = _setting("ZTUNNEL_HALF_CLOSED_TIMEOUT", values.keepalive_duration, 65.0)
    instance_ip: str = _setting("INSTANCE_IP", values.text, "1.1.1.1")
    pod_name: str = _setting("POD_NAME", values.text, "")
    pod_namespace: str = _setting("POD_NAMESPACE", values.text, "ztunnel-system")
    proxy_metadata: tuple[tuple[str, Any], ...] = field(default=())
    xds_headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    ca_headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


def misspelt(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that begin as ours do and are none, but nearly, each with the one that it is nearly. Others
    may be anything: Kubernetes names variables by its services, `ZTUNNEL_CONTROL_SERVICE_HOST`."""
    sources = [one.metadata["source"] for one in fields(Settings) if "source" in one.metadata]
    known = {variable for source in sources for variable in source.variables}
    unknown = (name for name in sorted(environment.keys() - known) if name.startswith("ZTUNNEL_"))
    near = {}
    for name in unknown:
        from difflib import get_close_matches  # no proxy without such a name needs it

        near[name] = get_close_matches(name, known, 1, _NEARLY)
    return {name: found[0] for name, found in near.items() if found}


class _Inputs(NamedTuple):
    flags: Mapping[str, object]
    environment: Mapping[str, str]
    mesh: MeshFile


def read_settings(
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    mesh_config: str = "",
    mesh_file: str = "mesh config",
) -> Settings:
    """The settings that all sources together give.

    Args:
        flags: by name of the field of Settings; None is not given.
        mesh_config: YAML text; keys that we do not know are Istio's and are ignored.
        mesh_file: its name, for messages.

    Raises:
        ConfigError: everything that is wrong, each with its name, its value and what is accepted.
    """
    inputs = _Inputs(flags, environment, MeshFile(mesh_config, mesh_file))
    faults = list(inputs.mesh.faults)
    found: dict[str, Any] = {}
    known = {one.name for one in fields(Settings)}
    faults.extend(
        Fault("command line", 0, _flag_name(name), "no such setting") for name in flags if name not in known
    )
    for one in fields(Settings):
        if "source" not in one.metadata:
            continue
        source: _Source = one.metadata["source"]
        given = next(_given(one.name, source, inputs), None)
        if given is None:
            continue
        try:
            found[one.name] = source.parse(given.value)
        except ValueError as error:
            faults.append(Fault(given.file, given.line, given.name, f"{given.value[:200]!r} is not {error}"))
    faults.extend(_derive(found, environment))
    found["xds_headers"] = read_headers(environment, "XDS_HEADER_", faults)
    found["ca_headers"] = read_headers(environment, "CA_HEADER_", faults)
    found["proxy_metadata"] = read_metadata(environment, _proxy_metadata(inputs.mesh), faults)
    if faults:
        raise ConfigError(*faults)
    return Settings(**found)


def _given(name: str, source: _Source, inputs: _Inputs) -> Iterator[Given]:
    """What the sources say about one setting, the strongest first."""
    if inputs.flags.get(name) is not None:
        value = inputs.flags[name]
        text = str(value).lower() if isinstance(value, bool) else str(value)
        yield Given(text, "command line", 0, _flag_name(name))
    for variable in source.variables:
        if variable in inputs.environment:
            yield Given(inputs.environment[variable], "environment", 0, variable)
    for key in (source.mesh, *(f"defaultConfig.proxyMetadata.{variable}" for variable in source.variables)):
        if key in inputs.mesh.values:
            yield inputs.mesh.values[key]


def _proxy_metadata(mesh: MeshFile) -> dict[str, str]:
    prefix = "defaultConfig.proxyMetadata."
    given = mesh.values.items()
    return {key.removeprefix(prefix): one.value for key, one in given if key.startswith(prefix)}


def _derive(found: dict[str, Any], environment: Mapping[str, str]) -> Iterator[Fault]:
    """Defaults that depend on other values."""
    if found.get("manifests") and found.get("xds_address"):
        message = f"{found['xds_address']!r} and a folder of manifests exclude each other"
        yield Fault("settings", 0, "xds_address", message)
    if "KUBERNETES_SERVICE_HOST" in environment and not found.get("manifests"):
        found.setdefault("xds_address", _ISTIOD)
    found.setdefault("ca_address", found.get("xds_address", ""))
    if found.get("signer_name") and not found.get("signer_root"):
        message = "which roots are to be trusted for it? Set ZTUNNEL_SIGNER_ROOT"
        yield Fault("settings", 0, "signer_name", message)
    if "INPOD_UDS" in environment or environment.get("INPOD_ENABLED", "").lower() in ("true", "1"):
        found.setdefault("pod_source", PodSource.ZDS)
    grace = environment.get("TERMINATION_GRACE_PERIOD_SECONDS")
    if grace is not None and "termination_deadline_seconds" not in found:
        try:
            seconds = values.number(1, 86400)(grace)
        except ValueError as error:
            message = f"{grace[:200]!r} is not {error}"
            yield Fault("environment", 0, "TERMINATION_GRACE_PERIOD_SECONDS", message)
        else:
            # ztunnel: what kubelet gives, less the time to close what is left.
            found["termination_deadline_seconds"] = float(
                seconds - 5 if seconds > 10 else max(1, seconds - 1)
            )


def _flag_name(field_name: str) -> str:
    return "--" + field_name.removesuffix("_seconds").removesuffix("_bytes").replace("_", "-")
