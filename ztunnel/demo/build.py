"""Makes and removes the network of a laboratory: namespaces, links, addresses, routes, cgroups.

One `ip -batch` for each namespace, all of one shop at once: two nodes with eight pods take about 0.2 s.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ztunnel.demo import network
from ztunnel.demo.cluster import Cluster, Difference, Pod
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.names import Names
from ztunnel.demo.run import end_in
from ztunnel.kernel.netns import NetworkNamespace

_IP = ("ip", "-batch", "-")
_FORCED = ("ip", "-force", "-batch", "-")


def build(names: Names, before: Cluster, after: Cluster, change: Difference) -> None:
    """Make what `change` starts. What is there already must be as `before` says.

    Raises:
        LaboratoryFailed: with the words of `ip`; what was made until then stays.
    """
    nodes, pods = change.nodes_new, _networked(change.pods_new)
    fabric = [] if before.nodes else [names.fabric]
    for cgroup in _cgroups(names, change):
        cgroup.mkdir(parents=True, exist_ok=True)
    node_names = [names.node(node.name) for node in nodes]
    pod_names = [names.pod(pod.namespace, pod.name) for pod in pods]
    fresh = (*fabric, *node_names, *pod_names)
    clear_namespaces(names, fresh)
    _batch([f"netns add {name}" for name in fresh])
    _set(names, fabric, network.FABRIC_SYSCTLS)
    _set(names, node_names, network.NODE_SYSCTLS)
    _set(names, pod_names, network.POD_SYSCTLS)
    cables = [line for node in nodes for line in network.fabric_port_lines(names, node)]
    batches(names, {names.fabric: [*(network.fabric_lines() if fabric else []), *cables]})
    lines = {names.node(node.name): network.node_lines(node) for node in nodes}
    for node in after.nodes:
        others = after.nodes if node in nodes else nodes
        lines.setdefault(names.node(node.name), []).extend(network.route_lines(node, others))
    for pod in pods:
        lines[names.node(pod.node.name)] += network.pod_port_lines(names, pod)
    _clear_ports(names, pods)
    batches(names, lines)
    batches(names, {names.pod(pod.namespace, pod.name): network.pod_lines(pod) for pod in pods})


def unbuild(names: Names, after: Cluster, change: Difference) -> None:
    """Remove what `change` ends; its processes must be gone.

    Raises:
        LaboratoryFailed: with the words of `ip`.
    """
    pods, lines = _networked(change.pods_gone), dict[str, list[str]]()
    for pod in pods:
        if pod.node not in change.nodes_gone:
            lines.setdefault(names.node(pod.node.name), []).append(f"link del {network.pod_port(pod)}")
    for node in after.nodes:
        if node not in change.nodes_new:
            routes = network.route_lines(node, change.nodes_gone, "del")
            lines.setdefault(names.node(node.name), []).extend(routes)
    lines[names.fabric] = [f"link del node{node.number}" for node in change.nodes_gone]
    batches(names, lines)
    gone = [names.pod(pod.namespace, pod.name) for pod in pods]
    gone += [names.node(node.name) for node in change.nodes_gone]
    remove_namespaces(gone)


def clear(names: Names, before: Cluster, change: Difference) -> None:
    """Remove all that a change made or left, and what it was to remove: whatever of it is there."""
    pods = _networked((*change.pods_new, *change.pods_gone))
    nodes = (*change.nodes_new, *change.nodes_gone)
    lines: dict[str, list[str]] = {names.fabric: [f"link del node{node.number}" for node in nodes]}
    for pod in pods:
        lines.setdefault(names.node(pod.node.name), []).append(f"link del {network.pod_port(pod)}")
    for node in before.nodes:
        lines.setdefault(names.node(node.name), []).extend(network.route_lines(node, nodes, "del"))
    _try(names, lines)
    fresh = [names.pod(pod.namespace, pod.name) for pod in pods] + [names.node(node.name) for node in nodes]
    delete_namespaces([name for name in dict.fromkeys(fresh) if names.netns(name).exists()])


def clear_namespaces(names: Names, namespaces: Sequence[str]) -> None:
    """Remove those that a change left which failed, or that a pod has of which nothing is known any more.

    Raises:
        LaboratoryFailed: one does not go away.
    """
    found = [name for name in namespaces if names.netns(name).exists()]
    for name in found:
        end_in(names, name)
    remove_namespaces(found)


def _clear_ports(names: Names, pods: Sequence[Pod]) -> None:
    """A cable to a pod of which nothing is known any more may be in the place of a new one."""
    lines: dict[str, list[str]] = {}
    for pod in pods:
        node, port = names.node(pod.node.name), network.pod_port(pod)
        with NetworkNamespace.open(names.netns(node)) as namespace, namespace.entered():
            if port in (name for _, name in socket.if_nameindex()):
                lines.setdefault(node, []).append(f"link del {port}")
    _try(names, lines)


def _try(names: Names, lines: Mapping[str, Sequence[str]]) -> None:
    """Run lines of which any may fail, because what they remove is not there."""
    for name, text in lines.items():
        if text and names.netns(name).exists():
            _start(names.netns(name), _FORCED).communicate("\n".join(text))


def delete_namespaces(namespaces: Sequence[str]) -> None:
    """`ip netns delete` for each, whatever becomes of the others."""
    if namespaces:
        _piped(_FORCED).communicate("\n".join(f"netns delete {name}" for name in namespaces))


def remove_namespaces(namespaces: Sequence[str]) -> None:
    """`ip netns delete`, all in one go. Raises LaboratoryFailed."""
    _batch([f"netns delete {name}" for name in namespaces])


def batches(names: Names, lines: Mapping[str, Sequence[str]]) -> None:
    """Run the lines for each network namespace, all namespaces at the same time. Raises LaboratoryFailed."""
    _finish([(_start(names.netns(name), _IP), "\n".join(text)) for name, text in lines.items() if text])


def translate(names: Names, nodes: Sequence[str], rules: str) -> None:
    """Replace the nftables rules of nodes. Raises LaboratoryFailed."""
    _finish([(_start(names.netns(names.node(node)), ["nft", "-f", "-"]), rules) for node in nodes])


def _start(netns: Path, command: Sequence[str]) -> subprocess.Popen[str]:
    """A child inherits the namespace of the thread that starts it."""
    with NetworkNamespace.open(netns) as namespace, namespace.entered():
        return _piped(command)


def _piped(command: Sequence[str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(command, text=True, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe)


def _finish(running: Sequence[tuple[subprocess.Popen[str], str]]) -> None:
    errors = []
    for process, text in running:
        _, complaint = process.communicate(text)
        if process.returncode:
            errors.append(complaint.strip())
    if errors:
        raise LaboratoryFailed("; ".join(errors))


def _batch(lines: Sequence[str]) -> None:
    if lines:
        _finish([(_piped(_IP), "\n".join(lines))])


def _set(names: Names, namespaces: Sequence[str], sysctls: Mapping[str, str]) -> None:
    """What a kernel does not have (no IPv6, no bridge netfilter) needs no setting."""
    for name in namespaces:
        with NetworkNamespace.open(names.netns(name)) as namespace, namespace.entered():
            for key, value in sysctls.items():
                path = Path("/proc/sys/net") / key
                if path.exists():
                    path.write_text(value)


def _networked(pods: Sequence[Pod]) -> list[Pod]:
    return [pod for pod in pods if not pod.host_network]


def _cgroups(names: Names, change: Difference) -> list[Path]:
    nodes = [
        path
        for node in change.nodes_new
        for path in (names.node_cgroup(node.name), names.proxy_cgroup(node.name))
    ]
    return [*nodes, *(names.pod_cgroup(pod.node.name, pod.uid) for pod in change.pods_new)]
