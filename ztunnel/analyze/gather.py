"""Gathers what somebody needs who is to find out what is wrong, in one archive without secrets.

A part that cannot be had costs only itself: why not stands in `errors.txt`."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from ztunnel.analyze.ask import ADMIN_PORT, Place, ask
from ztunnel.analyze.checks import as_text
from ztunnel.analyze.fetch import NoAnswer, fetch
from ztunnel.analyze.forward import NoCluster, forwarded, kubectl, node_pods
from ztunnel.analyze.probe import probe_machine
from ztunnel.analyze.redact import redact
from ztunnel.config import Settings
from ztunnel.demo.call import get
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.names import Names
from ztunnel.errors import ConfigError, Unsupported

_LARGEST_BYTES: Final = 16 << 20
"""Of one part; of a longer one the end is kept, which is the newest of a log."""

_METRICS_PORT, _READINESS_PORT = 15020, 15021
_LOG_LINES: Final = 20_000
_KINDS: Final = (
    "namespaces", "nodes", "pods", "services", "endpointslices", "serviceaccounts", "networkpolicies",
    "authorizationpolicies.security.istio.io", "peerauthentications.security.istio.io",
    "serviceentries.networking.istio.io", "workloadentries.networking.istio.io",
    "gateways.gateway.networking.k8s.io",
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
        """Take each part, and tell its name before."""
        for name, part in parts.items():
            tell(name)
            try:
                text = redact(part())
            except (NoAnswer, NoCluster, LaboratoryFailed, ConfigError, Unsupported, OSError) as error:
                self.errors.append(f"{name}: {error}")
                continue
            self.texts[name] = text[-_LARGEST_BYTES:]

    def write(self, path: Path, root: str, now_seconds: float) -> None:
        """As a compressed tar at `path`, below a folder `root` in it, as of now. Raises OSError."""
        texts = {**self.texts, "errors.txt": "".join(f"{line}\n" for line in self.errors)}
        with tarfile.open(path, "w:gz") as archive:
            for name, text in sorted(texts.items()):
                content = text.encode(errors="backslashreplace")
                entry = tarfile.TarInfo(f"{root}/{name}")
                entry.size, entry.mtime, entry.mode = len(content), int(now_seconds), 0o600
                archive.addfile(entry, io.BytesIO(content))


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
    prefix = names.node("")
    for netns in sorted(names.netns("x").parent.glob(f"{prefix}*")):
        node = netns.name.removeprefix(prefix)
        place = Place(node=node, laboratory=names.lab)
        log = names.node_directory(node) / "log"
        parts |= {
            f"nodes/{node}/config_dump.json": partial(ask, place, "/config_dump"),
            f"nodes/{node}/metrics.txt": partial(_get, netns, _METRICS_PORT, "/metrics"),
            f"nodes/{node}/readiness.txt": partial(_get, netns, _READINESS_PORT, "/healthz/ready"),
            f"nodes/{node}/log.txt": partial(log.read_text, errors="replace"),
        }
    for file in sorted(names.manifests.glob("*.yaml")):
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
        parts |= {
            f"nodes/{node}/log.txt": partial(_log, mine, pod),
            f"nodes/{node}/log-before.txt": partial(_log, mine, pod, "--previous"),
            f"nodes/{node}/config_dump.json": partial(_page, namespace, pod, ADMIN_PORT, "/config_dump"),
            f"nodes/{node}/metrics.txt": partial(_page, namespace, pod, _METRICS_PORT, "/metrics"),
            f"nodes/{node}/readiness.txt": partial(_page, namespace, pod, _READINESS_PORT, "/healthz/ready"),
        }
    control = ["-l", "app.kubernetes.io/component=control", "--all-containers", "--prefix"]
    parts["control/log.txt"] = lambda: kubectl([*mine, "logs", *control, f"--tail={_LOG_LINES}"])
    return parts


def gather(parts: Mapping[str, Part], tell: Tell) -> Archive:
    """All of it."""
    archive = Archive()
    archive.take(parts, tell)
    return archive


def _log(mine: Iterable[str], pod: str, *more: str) -> str:
    return kubectl([*mine, "logs", pod, "--all-containers", f"--tail={_LOG_LINES}", *more])


def _get(netns: Path, port: int, path: str) -> str:
    return get(netns, port, path)[1]


def _page(namespace: str, pod: str, port: int, path: str) -> str:
    with forwarded(pod, port, namespace) as address:
        return fetch(address, path)
