"""Gathers what somebody needs who is to find out what is wrong, in one archive without secrets.

A part that cannot be had costs only itself: why not stands in `errors.txt`."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from ztunnel.analyze.ask import METRICS_PORT, READINESS_PORT, Place, ask, nodes_of
from ztunnel.analyze.checks import as_text
from ztunnel.analyze.fetch import NoAnswer
from ztunnel.analyze.forward import CONTROL, HOLDER, NoCluster, kubectl, list_pods, node_pods
from ztunnel.analyze.probe import probe_machine
from ztunnel.analyze.redact import redact
from ztunnel.config import Settings
from ztunnel.control.waypoints.deployment import MANAGED_BY_US
from ztunnel.control.waypoints.waypoint import MANAGED
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.names import Names
from ztunnel.errors import ConfigError, Unsupported

_LARGEST_BYTES: Final = 16 << 20
"""Of one part; of a longer one the end is kept, which is the newest of a log."""

_AT_ONCE: Final = 8
_CONTROL_PORT: Final = 15014
_LOG_LINES: Final = 20_000
_KINDS: Final = (
    "namespaces", "nodes", "pods", "services", "endpointslices", "serviceaccounts", "networkpolicies",
    "authorizationpolicies.security.istio.io", "peerauthentications.security.istio.io",
    "requestauthentications.security.istio.io", "telemetries.telemetry.istio.io",
    "ratelimitpolicies.ztunnel.io",
    "serviceentries.networking.istio.io", "workloadentries.networking.istio.io",
    "virtualservices.networking.istio.io", "destinationrules.networking.istio.io",
    "gateways.gateway.networking.k8s.io", "gatewayclasses.gateway.networking.k8s.io",
    "httproutes.gateway.networking.k8s.io", "grpcroutes.gateway.networking.k8s.io",
    "tcproutes.gateway.networking.k8s.io", "tlsroutes.gateway.networking.k8s.io",
    "referencegrants.gateway.networking.k8s.io",
)  # fmt: skip
"""No Secrets and no ConfigMaps: nothing of those is needed."""

Part = Callable[[], str]
Tell = Callable[[str], None]


@dataclass(slots=True)
class Archive:
    """What was gathered: texts by path, and why others are missing."""

    texts: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def take(self, parts: Mapping[str, Part], tell: Tell) -> None:
        """Take each part, some at once, and tell its name before, from any thread."""
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            begun = {name: threads.submit(_take, name, part, tell) for name, part in parts.items()}
            for name, one in begun.items():
                try:
                    self.texts[name] = one.result()
                except (NoAnswer, NoCluster, LaboratoryFailed, ConfigError, Unsupported, OSError) as error:
                    self.errors.append(f"{name}: {error}")

    def write(self, path: Path, root: str, now_seconds: float) -> None:
        """As a compressed tar at `path`, below a folder `root` in it, as of now. Raises OSError."""
        texts = {**self.texts, "errors.txt": "".join(f"{line}\n" for line in self.errors)}
        with tarfile.open(path, "w:gz") as archive:
            for name, text in sorted(texts.items()):
                content = text.encode(errors="backslashreplace")
                entry = tarfile.TarInfo(f"{root}/{name}")
                entry.size, entry.mtime, entry.mode = len(content), int(now_seconds), 0o600
                archive.addfile(entry, io.BytesIO(content))


def _take(name: str, part: Part, tell: Tell) -> str:
    tell(name)
    return redact(part())[-_LARGEST_BYTES:]


def machine_parts(settings: Settings) -> dict[str, Part]:
    """What this machine is like."""
    return {
        "machine/check.txt": lambda: as_text(probe_machine(settings)),
        "machine/mounts.txt": lambda: Path("/proc/mounts").read_text(),
        "machine/version.txt": lambda: Path("/proc/version").read_text(),
    }


def laboratory_parts(names: Names) -> dict[str, Part]:
    """The node proxies of a laboratory, and its objects. Raises LaboratoryFailed: there is none."""
    if not names.directory.is_dir():
        raise LaboratoryFailed(f"there is no laboratory {names.lab!r}")
    parts: dict[str, Part] = {}
    for place in nodes_of(Place(laboratory=names.lab)):
        log = names.node_directory(place.node) / "log"
        parts |= _pages(f"nodes/{place.node}", place) | {
            f"nodes/{place.node}/log.txt": partial(log.read_text, errors="replace")
        }
    for file in sorted(names.manifests.glob("*.yaml")):
        if file.name.startswith("secret_"):
            continue
        parts[f"objects/{file.name}"] = partial(file.read_text, errors="replace")
    return parts


def cluster_parts(namespace: str) -> dict[str, Part]:
    """Node proxies and control planes of the cluster that kubectl reaches, and the objects of the mesh.

    Raises:
        NoCluster: it cannot be asked.
    """
    mine = ("-n", namespace)
    parts: dict[str, Part] = {
        "cluster/version.txt": lambda: kubectl(["version"]),
        "cluster/own.txt": lambda: kubectl([*mine, "get", "all,configmaps,leases", "-o", "wide"]),
        "cluster/events.txt": lambda: kubectl([*mine, "get", "events", "--sort-by=.lastTimestamp"]),
        "cluster/describe.txt": lambda: kubectl([*mine, "describe", "pods"]),
    }
    for kind in _KINDS:
        parts[f"objects/{kind}.yaml"] = partial(kubectl, ["get", kind, "-A", "-o", "yaml"])
    for node, pod in sorted(node_pods(namespace).items()):
        parts |= _pages(f"nodes/{node}", Place(pod=pod, node=node, namespace=namespace))
        parts[f"nodes/{node}/log.txt"] = partial(_log, mine, pod)
        parts[f"nodes/{node}/log-before.txt"] = partial(_log, mine, pod, "--previous")
    for name in _names(list_pods(namespace, CONTROL)):
        place = Place(pod=name, namespace=namespace)
        parts[f"control/{name}/metrics.txt"] = partial(ask, place, "/metrics", _CONTROL_PORT)
        parts[f"control/{name}/syncz.json"] = partial(ask, place, "/debug/syncz", _CONTROL_PORT)
        parts[f"control/{name}/readiness.txt"] = partial(ask, place, "/healthz/ready", READINESS_PORT)
    for name, selector in (("control/log.txt", CONTROL), ("nodes/holders.txt", HOLDER)):
        words = ["-l", selector, "--all-containers", "--prefix"]
        parts[name] = partial(kubectl, [*mine, "logs", *words, f"--tail={_LOG_LINES}"])
    try:
        waypoints = _waypoints()
    except (NoCluster, ValueError):
        waypoints = []  # why not, is told of the pods of all namespaces
    for where, name in waypoints:
        parts |= _pages(f"waypoints/{where}/{name}", Place(pod=name, namespace=where))
        parts[f"waypoints/{where}/{name}/log.txt"] = partial(_log, ("-n", where), name)
    return parts


def gather(parts: Mapping[str, Part], tell: Tell) -> Archive:
    """All of it."""
    archive = Archive()
    archive.take(parts, tell)
    return archive


def _log(mine: Iterable[str], pod: str, *more: str) -> str:
    return kubectl([*mine, "logs", pod, "--all-containers", f"--tail={_LOG_LINES}", *more])


def _names(pods: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted(str(one["metadata"]["name"]) for one in pods)


def _waypoints() -> list[tuple[str, str]]:
    """Namespace and name of each pod of a waypoint that our control plane runs."""
    found = json.loads(kubectl(["get", "pods", "-A", "-l", f"{MANAGED}={MANAGED_BY_US}", "-o", "json"]))
    metas = [one["metadata"] for one in found.get("items") or ()]
    return sorted((str(one["namespace"]), str(one["name"])) for one in metas)


def _pages(folder: str, place: Place) -> dict[str, Part]:
    """What a node proxy or a waypoint says of itself."""
    return {
        f"{folder}/config_dump.json": partial(ask, place, "/config_dump"),
        f"{folder}/metrics.txt": partial(ask, place, "/metrics", METRICS_PORT),
        f"{folder}/readiness.txt": partial(ask, place, "/healthz/ready", READINESS_PORT),
    }
