"""Brings a laboratory from one set of objects to another: what is gone is stopped, what is new is started.

A change that cannot be carried out leaves what was: it is undone, and pods that it had stopped are started
again as they were.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence

from ztunnel.demo import build, control, run, wait
from ztunnel.demo.assign import Objects
from ztunnel.demo.cluster import Cluster, Difference, Node, Pod, difference, read_cluster
from ztunnel.demo.command import is_waypoint
from ztunnel.demo.destroy import destroy_node
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.manifest import Key
from ztunnel.demo.names import Names
from ztunnel.demo.probe import probe
from ztunnel.demo.proxy_rules import hosts, rules
from ztunnel.demo.publish import write_hosts
from ztunnel.demo.readiness import judged, undecided
from ztunnel.demo.store import read_store, remove_files, write_objects
from ztunnel.demo.survey import asks_for_mesh

Children = list[subprocess.Popen[bytes]]


def replace(names: Names, before: Objects, after: Objects, children: Children) -> Difference:
    """Stop, unbuild, build, tell the node proxies, start. `children` gets each process as it is started.

    Raises:
        LaboratoryFailed: the kernel or `nft` refused, or something did not start or end. Where there was a
            laboratory before, it is again as it was.
    """
    old, new = read_cluster(before)[0], read_cluster(after)[0]
    change = difference(old, new)
    begun = undecided(after, change.pods_new)
    try:
        _change(names, (before, old), (begun, read_cluster(begun)[0]), change, children)
    except BaseException as error:
        if before:
            _undo(names, (before, old), change, children, error)
            remove_files(names, after.keys() - before.keys())
        raise
    return change


def start_proxies(names: Names, nodes: Iterable[Node], children: Children) -> None:
    """Start the proxies of nodes and wait until all are ready. Raises LaboratoryFailed."""
    started = []
    for node in nodes:
        children.append(start_proxy(names, node))
        started.append((node, children[-1]))
    wait.until_ready(names, started)


def start_proxy(names: Names, node: Node) -> subprocess.Popen[bytes]:
    """Start a node's proxy, with what it has to know of the laboratory's control plane."""
    if not names.control.exists():
        return run.start_node(names, node)
    return run.start_node(names, node, control.node_variables(names, node.name, first_node(names)))


def start_pod(names: Names, pod: Pod) -> list[run.Started]:
    """Start a pod's programs; a waypoint with what it has to know of the laboratory's control plane."""
    if not names.control.exists() or not is_waypoint(pod):
        return run.start_pod(names, pod)
    return run.start_pod(names, pod, control.waypoint_variables(names, pod, first_node(names)))


def start_control(
    names: Names, nodes: Sequence[Node], children: Children, waypoints: Sequence[Pod] = ()
) -> None:
    """Have a control plane run that knows these nodes and waypoints, which are new, if it is to be over the
    network."""
    if not (nodes or waypoints) or not names.control.exists():
        return
    runs = bool(run.processes(names.control_cgroup))
    if control.admit(names, nodes, waypoints) or not runs:
        if runs:
            run.end(names.control_cgroup)
        children.append(control.start(names, first_node(names)))


def first_node(names: Names) -> Node:
    """Where the control plane runs."""
    return read_cluster(read_store(names).objects)[0].nodes[0]


_State = tuple[Objects, Cluster]


def _change(names: Names, before: _State, after: _State, change: Difference, children: Children) -> None:
    old, new = before[1], after[1]
    kept = _stop(names, before[0], after[0], change)
    if change.pods_gone or change.nodes_gone:
        build.unbuild(names, new, change)
    if change.pods_new or change.nodes_new:
        build.build(names, old, new, change)
    _publish(names, kept, after)
    started = _start(names, (change.nodes_new, change.pods_new), after[0], children)
    verdicts = probe(names, new.pods, started)
    if verdicts:
        _decide(names, after[0], verdicts)


def _publish(names: Names, kept: Objects, state: _State) -> None:
    """What kube-proxy, DNS and the node proxies know from now on."""
    objects, new = state
    build.translate(names, [node.name for node in new.nodes], rules(new.services, new.pods))
    write_hosts(names, hosts(new))
    write_objects(names, kept, objects)


def _start(
    names: Names, fresh: tuple[tuple[Node, ...], tuple[Pod, ...]], objects: Objects, children: Children
) -> list[run.Started]:
    nodes, pods = fresh
    if not names.plain.exists():
        start_control(names, nodes, children, [pod for pod in pods if is_waypoint(pod)])
        start_proxies(names, nodes, children)
        wait.until_known(names, [pod for pod in pods if asks_for_mesh(pod, objects)])
    started = [each for pod in pods for each in start_pod(names, pod)]
    children += [each.process for each in started]
    wait.until_listening(names, started)
    return started


def _decide(names: Names, objects: Objects, verdicts: Mapping[Key, str]) -> None:
    """Endpoints of services are the pods whose probes succeed."""
    decided = judged(objects, verdicts)
    if decided is not objects:
        _publish(names, objects, (decided, read_cluster(decided)[0]))


def _stop(names: Names, before: Objects, after: Objects, change: Difference) -> Objects:
    """What is left; the objects on disk never name a pod that is stopped."""
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


def _undo(
    names: Names,
    before: _State,
    change: Difference,
    children: Children,
    error: BaseException,
) -> None:
    """Bring back what was, however far the change came. Raises LaboratoryFailed if that fails as well."""
    old = before[1]
    try:
        for pod in (*change.pods_new, *change.pods_gone):
            run.end(names.pod_cgroup(pod.node.name, pod.uid))
        for node in (*change.nodes_new, *change.nodes_gone):
            destroy_node(names, node.name)
        build.clear(names, old, change)
        back = Difference((), change.nodes_gone, (), change.pods_gone)
        stayed = Cluster(tuple(node for node in old.nodes if node not in change.nodes_gone), (), (), ())
        if back.nodes_new or back.pods_new:
            build.build(names, stayed, old, back)
        _publish(names, {}, before)
        _start(names, (back.nodes_new, back.pods_new), before[0], children)
    except LaboratoryFailed as again:
        raise LaboratoryFailed(
            f"{error}\nand what was before cannot be brought back: {again}\n`demo down` removes all of it"
        ) from again
