"""Makes and removes the network of a laboratory: namespaces, links, addresses, routes, cgroups."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ztunnel.demo import network
from ztunnel.demo.cluster import Cluster, Difference, Pod
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.names import Names
from ztunnel.demo.run import end_in
from ztunnel.kernel import named
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.topology import Change, Unlink


def build(names: Names, before: Cluster, after: Cluster, change: Difference) -> None:
    """Make what `change` starts. What is there already must be as `before` says.

    Raises:
        LaboratoryFailed: with the reason of the kernel; what was made until then stays.
    """
    nodes, pods = change.nodes_new, _networked(change.pods_new)
    fabric = [] if before.nodes else [names.fabric]
    for cgroup in _cgroups(names, change):
        cgroup.mkdir(parents=True, exist_ok=True)
    node_names = [names.node(node.name) for node in nodes]
    pod_names = [names.pod(pod.namespace, pod.name) for pod in pods]
    fresh = (*fabric, *node_names, *pod_names)
    clear_namespaces(names, fresh)
    _create(names, fresh)
    _set(names, fabric, network.FABRIC_SYSCTLS)
    _set(names, node_names, network.NODE_SYSCTLS)
    _set(names, pod_names, network.POD_SYSCTLS)
    cables = [each for node in nodes for each in network.fabric_port(names, node)]
    change_networks(names, {names.fabric: [*(network.fabric() if fabric else []), *cables]})
    changes = {names.node(node.name): network.node(node) for node in nodes}
    for node in after.nodes:
        others = after.nodes if node in nodes else nodes
        changes.setdefault(names.node(node.name), []).extend(network.ways(node, others))
    for pod in pods:
        changes[names.node(pod.node.name)] += network.pod_cable(names, pod)
    _clear_ports(names, pods)
    change_networks(names, changes)
    change_networks(names, {names.pod(pod.namespace, pod.name): network.pod(pod) for pod in pods})


def unbuild(names: Names, after: Cluster, change: Difference) -> None:
    """Remove what `change` ends; its processes must be gone.

    Raises:
        LaboratoryFailed: with the reason of the kernel.
    """
    pods, changes = _networked(change.pods_gone), dict[str, list[Change]]()
    for pod in pods:
        if pod.node not in change.nodes_gone:
            changes.setdefault(names.node(pod.node.name), []).append(Unlink(network.pod_port(pod)))
    for node in after.nodes:
        if node not in change.nodes_new:
            routes = network.no_ways(node, change.nodes_gone)
            changes.setdefault(names.node(node.name), []).extend(routes)
    changes[names.fabric] = [Unlink(f"node{node.number}") for node in change.nodes_gone]
    change_networks(names, changes)
    gone = [names.pod(pod.namespace, pod.name) for pod in pods]
    gone += [names.node(node.name) for node in change.nodes_gone]
    remove_namespaces(names, gone)


def clear(names: Names, before: Cluster, change: Difference) -> None:
    """Remove all that a change made or left, and what it was to remove: whatever of it is there."""
    pods = _networked((*change.pods_new, *change.pods_gone))
    nodes = (*change.nodes_new, *change.nodes_gone)
    changes: dict[str, list[Change]] = {names.fabric: [Unlink(f"node{node.number}") for node in nodes]}
    for pod in pods:
        changes.setdefault(names.node(pod.node.name), []).append(Unlink(network.pod_port(pod)))
    for node in before.nodes:
        changes.setdefault(names.node(node.name), []).extend(network.no_ways(node, nodes))
    _try(names, changes)
    fresh = [names.pod(pod.namespace, pod.name) for pod in pods] + [names.node(node.name) for node in nodes]
    delete_namespaces(names, [name for name in dict.fromkeys(fresh) if names.netns(name).exists()])


def clear_namespaces(names: Names, namespaces: Sequence[str]) -> None:
    """Remove those that a change left which failed, or that a pod has of which nothing is known any more.

    Raises:
        LaboratoryFailed: one does not go away.
    """
    found = [name for name in namespaces if names.netns(name).exists()]
    for name in found:
        end_in(names, name)
    remove_namespaces(names, found)


def _clear_ports(names: Names, pods: Sequence[Pod]) -> None:
    """A cable to a pod of which nothing is known any more may be in the place of a new one."""
    ports: dict[str, list[Change]] = {}
    for pod in pods:
        ports.setdefault(names.node(pod.node.name), []).append(Unlink(network.pod_port(pod)))
    _try(names, ports)


def _try(names: Names, changes: Mapping[str, Sequence[Change]]) -> None:
    """Changes of which any may fail, because what they remove is not there."""
    from ztunnel.kernel.links import try_changes

    for name, each in changes.items():
        if each and names.netns(name).exists():
            with suppress(OSError), NetworkNamespace.open(names.netns(name)) as namespace:
                try_changes(namespace, each)


def delete_namespaces(names: Names, namespaces: Sequence[str]) -> None:
    """Remove each, whatever becomes of the others."""
    for name in namespaces:
        with suppress(OSError):
            named.remove(names.netns(name))


def remove_namespaces(names: Names, namespaces: Sequence[str]) -> None:
    """Raises LaboratoryFailed."""
    for name in namespaces:
        try:
            named.remove(names.netns(name))
        except OSError as error:
            raise LaboratoryFailed(f"{names.netns(name)} cannot be removed: {error.strerror}") from error


def _create(names: Names, namespaces: Sequence[str]) -> None:
    for name in namespaces:
        try:
            named.create(names.netns(name))
        except OSError as error:
            raise LaboratoryFailed(f"{names.netns(name)} cannot be made: {error.strerror}") from error


def change_networks(names: Names, changes: Mapping[str, Sequence[Change]]) -> None:
    """Change network namespaces, by their names, until something fails. Raises LaboratoryFailed."""
    # pyroute2's messages take a tenth of a second to import, and most commands change no network.
    from ztunnel.kernel.links import NotChanged, change

    for name, each in changes.items():
        try:
            if each:
                with NetworkNamespace.open(names.netns(name)) as namespace:
                    change(namespace, each)
        except (NotChanged, OSError) as error:
            raise LaboratoryFailed(f"{name}: {error}") from error


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
