"""Brings a laboratory from one set of objects to another: what is gone is stopped, what is new is started."""

from __future__ import annotations

import subprocess

from ztunnel.demo import build, run, wait
from ztunnel.demo.cluster import Cluster, Difference, Node, cluster, difference
from ztunnel.demo.destroy import destroy_node
from ztunnel.demo.names import Names
from ztunnel.demo.proxy_rules import hosts, rules
from ztunnel.demo.publish import write_hosts, write_objects
from ztunnel.demo.schedule import Objects

Children = list[subprocess.Popen[bytes]]
_NOTHING = Cluster((), (), (), ())


def replace(names: Names, before: Objects, after: Objects, children: Children) -> Difference:
    """Stop, unbuild, build, tell the node proxies, start. `children` gets each process as it is started.

    Where it fails, what was done until then stays; the objects on disk never name a pod that was not built.

    Raises:
        LaboratoryFailed: `ip` or `nft` refused, or something did not start or end.
    """
    old, new = cluster(before) if before else _NOTHING, cluster(after)
    change = difference(old, new)
    kept = _stop(names, before, after, change)
    if change.pods_gone or change.nodes_gone:
        build.unbuild(names, new, change)
    if change.pods_new or change.nodes_new:
        build.build(names, old, new, change)
    build.translate(names, [node.name for node in new.nodes], rules(new.services, new.pods))
    write_hosts(names, [(namespace, hosts(namespace, new.services)) for namespace in new.namespaces])
    write_objects(names, kept, after)
    if not names.plain.exists():
        start_proxies(names, change.nodes_new, children)
    started = []
    for pod in change.pods_new:
        children.append(run.start_pod(names, pod))
        started.append((pod, children[-1]))
    wait.until_listening(names, started)
    return change


def start_proxies(names: Names, nodes: tuple[Node, ...], children: Children) -> None:
    """Start the proxies of nodes and wait until all are ready. Raises LaboratoryFailed."""
    started = []
    for node in nodes:
        children.append(run.start_node(names, node))
        started.append((node, children[-1]))
    wait.until_ready(names, started)


def _stop(names: Names, before: Objects, after: Objects, change: Difference) -> Objects:
    for pod in change.pods_gone:
        run.end(names.pod_cgroup(pod.node.name, pod.uid))
    for node in change.nodes_gone:
        destroy_node(names, node.name)
    gone = {("Pod", pod.namespace, pod.name) for pod in change.pods_gone}
    kept = {
        key: manifest
        for key, manifest in before.items()
        if key in after and (key.kind, key.namespace, key.name) not in gone
    }
    write_objects(names, before, kept)
    return kept
