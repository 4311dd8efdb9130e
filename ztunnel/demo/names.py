"""What a laboratory calls the things it makes, so that a crashed one is found again by their names alone.

| thing | name |
|---|---|
| network namespaces | `zt-<lab>-fabric`, `zt-<lab>-node-<node>`, `zt-<lab>-pod-<namespace>.<pod>` |
| state, logs | `/run/ztunnel/<lab>/` |
| cgroups | `<cgroup2>/ztunnel-<lab>/<node>/{node,ztunnel,kubepods/pod<uid>}` |
| pins of eBPF | `/sys/fs/bpf/ztunnel/<lab>-<node>/` |

The name of a laboratory holds no `-`, and a Kubernetes namespace no `.`: so no two of these names can be
confused, and `down` of one laboratory never touches another's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ztunnel.errors import ConfigError, Fault
from ztunnel.redirect.plan import pin_name

RUN = Path("/run/ztunnel")
NETNS = Path("/run/netns")
PINS = Path("/sys/fs/bpf/ztunnel")

_LAB = re.compile(r"[a-z][a-z0-9]{0,30}")


@dataclass(frozen=True, slots=True)
class Names:
    """All names of one laboratory. `cgroup2` is where the unified cgroup hierarchy is mounted."""

    lab: str
    cgroup2: Path

    def __post_init__(self) -> None:
        if not _LAB.fullmatch(self.lab):
            message = "not a small letter with at most 30 small letters and digits after it"
            raise ConfigError(Fault("--name", 0, self.lab, message))

    @property
    def prefix(self) -> str:
        """What every network namespace of this laboratory begins with."""
        return f"zt-{self.lab}-"

    @property
    def fabric(self) -> str:
        """The network namespace that joins the nodes."""
        return f"{self.prefix}fabric"

    def node(self, node: str) -> str:
        """The network namespace of a node."""
        return f"{self.prefix}node-{node}"

    def pod(self, namespace: str, pod: str) -> str:
        """The network namespace of a pod."""
        return f"{self.prefix}pod-{namespace}.{pod}"

    def netns(self, name: str) -> Path:
        """The file by which `ip netns` holds a network namespace."""
        return NETNS / name

    @property
    def pod_netns_pattern(self) -> str:
        """Where a node proxy finds the namespace of a pod; for `str.format(namespace=..., name=...)`."""
        return str(NETNS / self.pod("{namespace}", "{name}"))

    @property
    def directory(self) -> Path:
        """Everything that is a file."""
        return RUN / self.lab

    @property
    def manifests(self) -> Path:
        """The completed objects: the truth about the laboratory, and what the node proxies watch."""
        return self.directory / "manifests"

    @property
    def workloads(self) -> Path:
        """The objects of which pods are made; node proxies do not read them."""
        return self.directory / "workloads"

    @property
    def lock(self) -> Path:
        """One command at a time changes a laboratory; beside its directory, which comes and goes."""
        return RUN / f".{self.lab}.lock"

    @property
    def whole(self) -> Path:
        """A file that is there once `up` has come to its end."""
        return self.directory / "whole"

    @property
    def plain(self) -> Path:
        """A file that is there if the laboratory has no node proxies."""
        return self.directory / "plain"

    @property
    def control(self) -> Path:
        """The directory of a control plane over the network; without it each node proxy has its own."""
        return self.directory / "control"

    @property
    def control_cgroup(self) -> Path:
        """Its process, alone."""
        return self.cgroup / "control"

    def token(self, node: str) -> Path:
        """What a node proxy shows to it."""
        return self.node_directory(node) / "token"

    def account_token(self, namespace: str, account: str) -> Path:
        """What a waypoint of that service account shows to it."""
        return self.control / "accounts" / f"{namespace}.{account}"

    def node_directory(self, node: str) -> Path:
        """A node proxy's run directory; its log is the file `log` in it."""
        return self.directory / "nodes" / node

    def pod_log(self, namespace: str, pod: str) -> Path:
        """Where a pod's standard output and error go."""
        return self.directory / "pods" / f"{namespace}.{pod}.log"

    @property
    def all_hosts(self) -> Path:
        """The directory of what pods see as `/etc/hosts`."""
        return self.directory / "hosts"

    def hosts(self, namespace: str, pod: str) -> Path:
        """`/etc/hosts` of a pod."""
        return self.all_hosts / f"{namespace}.{pod}"

    @property
    def resolv_conf(self) -> Path:
        """`/etc/resolv.conf` of every pod."""
        return self.directory / "resolv.conf"

    @property
    def cgroup(self) -> Path:
        """The cgroup below which every process of the laboratory runs."""
        return self.cgroup2 / f"ztunnel-{self.lab}"

    def node_cgroup(self, node: str) -> Path:
        """Processes of the node itself, such as a kubelet's probes."""
        return self.cgroup / node / "kubelet"

    def proxy_cgroup(self, node: str) -> Path:
        """The node proxy, alone."""
        return self.cgroup / node / "ztunnel"

    def pod_cgroup(self, node: str, uid: str) -> Path:
        """The processes of a pod."""
        return self.cgroup / node / "kubepods" / f"pod{uid}"

    def pins(self, node: str) -> Path:
        """Where a node proxy pins its links and maps."""
        return PINS / f"{self.lab}-{pin_name(node)}"
