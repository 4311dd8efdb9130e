"""Show how the mesh of a cluster is: control planes, node proxies, and pods that ought to be in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from ztunnel.analyze.ask import READINESS_PORT, Place, ask
from ztunnel.analyze.fetch import NoAnswer
from ztunnel.analyze.forward import CONTROL, HOLDER, NAMESPACE, NODE, NoCluster, kubectl, list_pods
from ztunnel.analyze.nodes import NodeState, as_text, as_values, control_state, node_state
from ztunnel.analyze.rollout import holder_remarks, refusal_of, rollout_remarks
from ztunnel.cli._progress import progress
from ztunnel.cli.options import echo, formatted

_AT_ONCE = 8


@click.command()
@click.option("--system-namespace", default=NAMESPACE, show_default=True, help="Where node proxies run.")
@formatted
def status(system_namespace: str, form: str) -> None:
    """Show how the mesh of the cluster is that kubectl reaches.

    An upgrade that goes on, or was interrupted, is told of: how far it is, which proxy does not take over,
    and why. A laboratory has `ztunnel demo status`. The exit status is 0 where all is well, else 1.
    """
    try:
        controls = [control_state(pod) for pod in list_pods(system_namespace, CONTROL)]
        pods = list_pods(system_namespace, NODE)
        holders = holder_remarks(list_pods(system_namespace, HOLDER))
    except NoCluster as error:
        raise click.ClickException(str(error)) from error
    if not pods:
        raise click.ClickException(
            why_not_made(system_namespace)
            or f"there are no node proxies in namespace {system_namespace}: install them "
            "(helm install, or name another with --system-namespace)"
        )
    nodes = node_states(pods, system_namespace)
    upgrade = rollout_remarks(pods)
    if form == "text":
        click.echo(as_text(nodes, controls))
        for line in (*upgrade, *holders):
            click.echo(line)
    else:
        echo({**as_values(nodes, controls), "upgrade": upgrade, "holders": holders}, form)
    if upgrade or holders or not all(one.good for one in nodes) or not all(one.ready for one in controls):
        raise SystemExit(1)


def node_states(pods: Sequence[Mapping[str, Any]], namespace: str) -> list[NodeState]:
    """What each of these pods of node proxies says, by node."""
    with progress(f"asking {len(pods)} node proxies"), ThreadPoolExecutor(_AT_ONCE) as threads:
        found = threads.map(lambda pod: _node(pod, namespace), pods)
        return sorted(found, key=lambda one: (one.node, one.pod))


def why_not_made(namespace: str) -> str:
    """What keeps a DaemonSet of ours from making its pods; empty where there is none, or nothing does."""
    mine = ["-n", namespace, "get"]
    try:
        there = json.loads(kubectl([*mine, "daemonsets", "-l", NODE, "-o", "json"])).get("items")
        events = kubectl([*mine, "events", "--field-selector=involvedObject.kind=DaemonSet", "-o", "json"])
    except NoCluster:
        return ""
    return refusal_of(there or (), json.loads(events).get("items") or ())


def _node(pod: Mapping[str, Any], namespace: str) -> NodeState:
    """What a node proxy says; where it does not answer, that."""
    place = Place(pod=pod["metadata"]["name"], namespace=namespace)
    detail: list[str] = []
    try:
        readiness = ask(place, "/healthz/ready", READINESS_PORT).strip()
    except NoAnswer as error:
        readiness = str(error).rpartition(": ")[2] if "not ready" in str(error) else str(error)
    if readiness != "ready":
        detail += readiness.removeprefix("ready\n").splitlines()
    try:
        return node_state(pod, json.loads(ask(place, "/config_dump")), detail)
    except (NoAnswer, ValueError) as error:
        return node_state(pod, None, [*detail, str(error)])
