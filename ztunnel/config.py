"""The settings of a node proxy: flag over environment over mesh config file over default.

Names and defaults are those of Istio's ztunnel where they mean the same (ztunnel src/config.rs); ours start
with `ZTUNNEL_`. A flag is the field's name with dashes and without its unit: `--secret-ttl`. In the mesh
config file every variable may stand under `defaultConfig.proxyMetadata`, as in Istio.
"""

# ruff: noqa: RUF009 (`_setting` makes a dataclass field)

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ztunnel.errors import ConfigError, Fault, PeerError
from ztunnel.model.address import Endpoint, parse_endpoint
from ztunnel.model.workload import SameNode

_ISTIOD = "https://istiod.istio-system.svc:15012"

_Parse = Callable[[str], object]
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?")
_SIZE = re.compile(r"(\d+)(Ki|Mi|Gi|)")
_URL = re.compile(r"https?://([a-zA-Z0-9._-]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}")
_DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?")
_LEVEL = re.compile(r"([\w:.*-]+[=:])?(trace|debug|info|warn|error|off)", re.ASCII)


def _text(raw: str) -> str:
    return raw


def _name(raw: str) -> str:
    if not _DNS_NAME.fullmatch(raw):
        raise ValueError("a name of lower-case letters, digits, dots and dashes")
    return raw


def _names(raw: str) -> tuple[str, ...]:
    """With commas between them."""
    return tuple(_name(part.strip()) for part in raw.split(",") if part.strip())


def _flag(raw: str) -> bool:
    if raw.lower() not in ("true", "false"):
        raise ValueError("true or false")
    return raw.lower() == "true"


def _seconds(raw: str) -> float:
    """Go's durations, as Istio writes them: `24h`, `1m30s`, `250ms`."""
    match = _DURATION.fullmatch(raw)
    if not raw or match is None:
        raise ValueError("a duration such as 24h, 1m30s, 5s, 250ms")
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def _positive_seconds(raw: str) -> float:
    seconds = _seconds(raw)
    if seconds <= 0:
        raise ValueError("a duration longer than zero, such as 24h, 1m30s, 5s, 250ms")
    return seconds


def _keepalive_seconds(raw: str) -> float:
    seconds = _positive_seconds(raw)
    if seconds > 32767:  # tcp(7)
        raise ValueError("a duration up to 32767s, such as 180s, 10m")
    return seconds


def _bytes_from(least: int, most: int) -> _Parse:
    def parse(raw: str) -> int:
        match = _SIZE.fullmatch(raw)
        unit = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
        size = int(match[1]) * unit[match[2]] if match and len(match[1]) < 16 else -1
        if not least <= size <= most:
            raise ValueError(f"a number of bytes from {least} to {most}, also as 64Ki, 16Mi, 1Gi")
        return size

    return parse


def _number(least: int, most: int) -> Callable[[str], int]:
    def parse(raw: str) -> int:
        if not (raw.isascii() and raw.isdigit() and len(raw) < 16 and least <= int(raw) <= most):
            raise ValueError(f"a number from {least} to {most}")
        return int(raw)

    return parse


def _one_of(*words: str) -> _Parse:
    def parse(raw: str) -> str:
        if raw not in words:
            raise ValueError(" or ".join(words))
        return raw

    return parse


def _same_node(raw: str) -> SameNode:
    try:
        return SameNode(raw)
    except ValueError as error:
        raise ValueError(" or ".join(SameNode)) from error


class Connect(StrEnum):
    """When connect() returns: once the far end has answered, with what that said, or at once, and what cannot
    be reached is told by a reset."""

    DEFERRED = "deferred"
    IMMEDIATE = "immediate"


def _connect(raw: str) -> Connect:
    try:
        return Connect(raw)
    except ValueError as error:
        raise ValueError(" or ".join(Connect)) from error


def _path(raw: str) -> Path:
    if not raw.startswith("/"):
        raise ValueError("an absolute path")
    return Path(raw)


def _maybe_path(raw: str) -> Path | None:
    return Path(raw) if raw else None


def _levels(raw: str) -> str:
    if not all(_LEVEL.fullmatch(part) for part in raw.split(",")):
        raise ValueError("<level> or <scope>=<level>, with commas; of trace, debug, info, warn, error, off")
    return raw


def _address(raw: str) -> str:
    """`https://host:port` of a control plane, or nothing for none."""
    url = f"https://{raw}" if raw and "://" not in raw else raw
    if url and not _URL.fullmatch(url):
        raise ValueError("https://<host>:<port>, or nothing for none")
    return url


def _listen(raw: str) -> Endpoint:
    """`ip:port` or, as Istio writes it, `localhost:port`."""
    try:
        return parse_endpoint(re.sub("^localhost:", "127.0.0.1:", raw))
    except PeerError as error:
        raise ValueError("an address with a port, such as 127.0.0.1:15000 or [::]:15020") from error


def _namespace_path(raw: str) -> str:
    """Where the network namespace of a pod is: a path with `{namespace}` and `{name}`."""
    filled = raw.replace("{namespace}", "").replace("{name}", "")
    if raw and (not raw.startswith("/") or "{name}" not in raw or "{" in filled or "}" in filled):
        raise ValueError("an absolute path with {namespace} and {name} in it")
    return raw


_window = _bytes_from(65535, 2**31 - 1)
_CLIENTS = _one_of("kubelet", "node", "all")


class _Source(NamedTuple):
    """Where a setting comes from: environment variables, of which the first set counts; a mesh config key."""

    variables: tuple[str, ...]
    parse: _Parse
    mesh: str


def _setting(variables: str, parse: _Parse, default: object, mesh: str = "", shown: bool = True) -> Any:
    source = _Source(tuple(variables.split()), parse, mesh)
    return field(default=default, repr=shown, metadata={"source": source})


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
        state_dir: what has to survive a restart: the key of our own authority.
        pins: where our programs and maps are pinned; None is `/sys/fs/bpf/ztunnel/<node>`.
        pod_netns: where the network namespace of a pod is, with `{namespace}` and `{name}`; empty: find them
            through /proc and the cgroups of kubelet's pods.
        node_clients: whose connections from the node itself reach pods without policy.
        buffer_limit_bytes: what all tunnels together may hold before new streams are refused.
        connect: when an application's connect() into the mesh returns.
        connect_timeout_seconds: for one connection, TLS included where there is some. Istio's ztunnel: 10 s.
        ping_interval_seconds, ping_timeout_seconds: how often a session's peer is asked whether it is there,
            and when it is gone; Istio's ztunnel: 10 s, 20 s.
        half_closed_seconds: of silence until an application that has closed is asked whether it is there; its
            kernel forgets it after 60 s (`net.ipv4.tcp_fin_timeout`).
    """

    node: str = _setting("NODE_NAME", _text, "")
    cluster: str = _setting("CLUSTER_ID ISTIO_META_CLUSTER_ID", _text, "Kubernetes")
    cluster_domain: str = _setting("CLUSTER_DOMAIN", _name, "cluster.local")
    trust_domain: str = _setting("TRUST_DOMAIN", _name, "cluster.local", "trustDomain")
    trust_domain_aliases: tuple[str, ...] = _setting(
        "ZTUNNEL_TRUST_DOMAIN_ALIASES", _names, (), "trustDomainAliases"
    )
    network: str = _setting("NETWORK", _text, "")
    root_namespace: str = _setting("ZTUNNEL_ROOT_NAMESPACE", _name, "istio-system", "rootNamespace")
    xds_address: str = _setting("XDS_ADDRESS", _address, "", "defaultConfig.discoveryAddress")
    xds_root_ca: str = _setting("XDS_ROOT_CA", _text, "./var/run/secrets/istio/root-cert.pem")
    ca_address: str = _setting("CA_ADDRESS", _address, "")
    ca_root_ca: str = _setting("CA_ROOT_CA", _text, "./var/run/secrets/istio/root-cert.pem")
    auth_token: str = _setting("AUTH_TOKEN", _text, "./var/run/secrets/tokens/istio-token", shown=False)
    secret_ttl_seconds: float = _setting("SECRET_TTL", _positive_seconds, 86400.0)
    pool_max_streams: int = _setting("POOL_MAX_STREAMS_PER_CONNECTION", _number(1, 1000), 100)
    pool_release_seconds: float = _setting("POOL_UNUSED_RELEASE_TIMEOUT", _positive_seconds, 300.0)
    stream_window_bytes: int = _setting("HTTP2_STREAM_WINDOW_SIZE", _window, 4 << 20)
    session_window_bytes: int = _setting("HTTP2_CONNECTION_WINDOW_SIZE", _window, 16 << 20)
    frame_bytes: int = _setting("HTTP2_FRAME_SIZE", _bytes_from(16384, 2**24 - 1), 1 << 20)
    termination_deadline_seconds: float = _setting("CONNECTION_TERMINATION_DEADLINE", _seconds, 5.0)
    keepalive: bool = _setting("KEEPALIVE_ENABLED", _flag, True)
    keepalive_time_seconds: float = _setting("KEEPALIVE_TIME", _keepalive_seconds, 180.0)
    keepalive_interval_seconds: float = _setting("KEEPALIVE_INTERVAL", _keepalive_seconds, 180.0)
    keepalive_retries: int = _setting("KEEPALIVE_RETRIES", _number(1, 127), 9)
    ipv6: bool = _setting("IPV6_ENABLED", _flag, True)
    log_format: str = _setting("LOG_FORMAT", _one_of("plain", "json"), "plain")
    log_level: str = _setting("LOG_LEVEL RUST_LOG", _levels, "info")
    access_log: bool = _setting("ZTUNNEL_ACCESS_LOG", _flag, True)
    manifests: Path | None = _setting("ZTUNNEL_MANIFESTS", _maybe_path, None)
    state_dir: Path = _setting("ZTUNNEL_STATE_DIR", _path, Path("/var/lib/ztunnel"))
    cache_dir: Path = _setting("ZTUNNEL_CACHE_DIR", _path, Path("/var/cache/ztunnel"))
    pins: Path | None = _setting("ZTUNNEL_PINS", _maybe_path, None)
    pod_netns: str = _setting("ZTUNNEL_POD_NETNS", _namespace_path, "")
    same_node: SameNode = _setting("ZTUNNEL_SAME_NODE", _same_node, SameNode.AUTO, "sameNode")
    node_clients: str = _setting("ZTUNNEL_NODE_CLIENTS", _CLIENTS, "kubelet", "nodeClients")
    admin_address: Endpoint = _setting(
        "ZTUNNEL_ADMIN_ADDRESS", _listen, Endpoint(IPv4Address("127.0.0.1"), 15000)
    )
    metrics_address: Endpoint = _setting(
        "ZTUNNEL_METRICS_ADDRESS", _listen, Endpoint(IPv6Address("::"), 15020)
    )
    readiness_address: Endpoint = _setting(
        "ZTUNNEL_READINESS_ADDRESS", _listen, Endpoint(IPv6Address("::"), 15021)
    )
    metrics_series_limit: int = _setting("ZTUNNEL_METRICS_SERIES_LIMIT", _number(100, 10**6), 20_000)
    buffer_limit_bytes: int = _setting("ZTUNNEL_BUFFER_LIMIT", _bytes_from(1 << 20, 1 << 40), 64 << 20)
    connect: Connect = _setting("ZTUNNEL_CONNECT", _connect, Connect.DEFERRED)
    connect_timeout_seconds: float = _setting("ZTUNNEL_CONNECT_TIMEOUT", _positive_seconds, 10.0)
    ping_interval_seconds: float = _setting("ZTUNNEL_PING_INTERVAL", _positive_seconds, 10.0)
    ping_timeout_seconds: float = _setting("ZTUNNEL_PING_TIMEOUT", _positive_seconds, 20.0)
    half_closed_seconds: float = _setting("ZTUNNEL_HALF_CLOSED_TIMEOUT", _keepalive_seconds, 65.0)


class _Given(NamedTuple):
    value: str
    file: str
    line: int
    name: str


class _Mesh:
    """The mesh config file, flattened: dotted keys of scalars and of lists (with commas), as text with their
    lines."""

    def __init__(self, text: str, file: str) -> None:
        self.values: dict[str, _Given] = {}
        self.faults: list[Fault] = []
        self._file = file
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            problem = getattr(error, "problem", None) or "not YAML"
            self.faults.append(Fault(file, mark.line + 1 if mark else 0, "", str(problem)))
            return
        if root is None:
            return
        if isinstance(root, yaml.MappingNode):
            self._flatten("", root, 4)
        else:
            self.faults.append(Fault(file, 1, "", "a mapping is expected"))

    def _flatten(self, prefix: str, node: yaml.MappingNode, depth: int) -> None:
        """`depth` bounds what aliases can do; the keys that we know are three deep."""
        for key_node, value_node in node.value:
            key = f"{prefix}{key_node.value}"
            if isinstance(value_node, yaml.MappingNode) and depth:
                self._flatten(f"{key}.", value_node, depth - 1)
            elif isinstance(value_node, yaml.ScalarNode):
                self._add(key, value_node, str(value_node.value))
            elif isinstance(value_node, yaml.SequenceNode):
                parts = [part.value for part in value_node.value if isinstance(part, yaml.ScalarNode)]
                self._add(key, value_node, ",".join(parts))

    def _add(self, key: str, node: yaml.Node, value: str) -> None:
        self.values[key] = _Given(value, self._file, node.start_mark.line + 1, key)


class _Inputs(NamedTuple):
    flags: Mapping[str, object]
    environment: Mapping[str, str]
    mesh: _Mesh


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
    inputs = _Inputs(flags, environment, _Mesh(mesh_config, mesh_file))
    faults = list(inputs.mesh.faults)
    values: dict[str, Any] = {}
    known = {one.name for one in fields(Settings)}
    faults.extend(
        Fault("command line", 0, _flag_name(name), "no such setting") for name in flags if name not in known
    )
    for one in fields(Settings):
        source: _Source = one.metadata["source"]
        given = next(_given(one.name, source, inputs), None)
        if given is None:
            continue
        try:
            values[one.name] = source.parse(given.value)
        except ValueError as error:
            faults.append(Fault(given.file, given.line, given.name, f"{given.value[:200]!r} is not {error}"))
    faults.extend(_derive(values, environment))
    if faults:
        raise ConfigError(*faults)
    return Settings(**values)


def _given(name: str, source: _Source, inputs: _Inputs) -> Iterator[_Given]:
    """What the sources say about one setting, the strongest first."""
    if inputs.flags.get(name) is not None:
        value = inputs.flags[name]
        text = str(value).lower() if isinstance(value, bool) else str(value)
        yield _Given(text, "command line", 0, _flag_name(name))
    for variable in source.variables:
        if variable in inputs.environment:
            yield _Given(inputs.environment[variable], "environment", 0, variable)
    for key in (source.mesh, *(f"defaultConfig.proxyMetadata.{variable}" for variable in source.variables)):
        if key in inputs.mesh.values:
            yield inputs.mesh.values[key]


def _derive(values: dict[str, Any], environment: Mapping[str, str]) -> Iterator[Fault]:
    """Defaults that depend on other values."""
    if values.get("manifests") and values.get("xds_address"):
        message = f"{values['xds_address']!r} and a folder of manifests exclude each other"
        yield Fault("settings", 0, "xds_address", message)
    if "KUBERNETES_SERVICE_HOST" in environment and not values.get("manifests"):
        values.setdefault("xds_address", _ISTIOD)
    values.setdefault("ca_address", values.get("xds_address", ""))
    grace = environment.get("TERMINATION_GRACE_PERIOD_SECONDS")
    if grace is not None and "termination_deadline_seconds" not in values:
        try:
            seconds = _number(1, 86400)(grace)
        except ValueError as error:
            message = f"{grace[:200]!r} is not {error}"
            yield Fault("environment", 0, "TERMINATION_GRACE_PERIOD_SECONDS", message)
        else:
            # ztunnel: what kubelet gives, less the time to close what is left.
            values["termination_deadline_seconds"] = float(
                seconds - 5 if seconds > 10 else max(1, seconds - 1)
            )


def _flag_name(field_name: str) -> str:
    return "--" + field_name.removesuffix("_seconds").removesuffix("_bytes").replace("_", "-")
