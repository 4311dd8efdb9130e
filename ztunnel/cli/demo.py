"""A mesh on one machine: nodes and pods as network namespaces, made from Kubernetes manifests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ztunnel.demo.failure import Ambiguous, LaboratoryFailed, unknown
from ztunnel.demo.load import Loaded, load
from ztunnel.demo.operate import BUNDLED, Laboratory
from ztunnel.demo.status import as_json, as_text


class _Demo(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LaboratoryFailed as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Demo)
def demo() -> None:
    """A mesh on one machine.

    Nodes and pods are network namespaces, made from the Kubernetes and Istio manifests of a directory.
    Start with `up`, look with `status`, and remove everything with `down`.
    """


_SOURCE = click.Path(exists=True, allow_dash=True, path_type=Path)


def _named(command: Callable[..., None]) -> Callable[..., None]:
    return click.option("--name", default="lab", show_default=True, help="Name of the laboratory.")(command)


@demo.command()
@click.argument("source", metavar="[DIRECTORY|FILE|-]", type=_SOURCE, default=BUNDLED)
@click.option("--plain", is_flag=True, help="No node proxies: the pods talk as they would without a mesh.")
@click.option(
    "--control",
    type=click.Choice(["embedded", "network"]),
    default="embedded",
    help="A control plane in each node proxy, or one for all over the network.",
)
@_named
def up(source: Path, plain: bool, control: str, name: str) -> None:
    """Start a laboratory from manifests.

    Without any it is a shop of three services on two nodes.

    Pods come of Pod, Deployment, StatefulSet, DaemonSet, Job, ReplicaSet and ReplicationController. A
    container whose command this machine has runs it; in the place of all others an echo server listens on
    their ports. What is not read is listed.
    """
    loaded = load([source])
    _tell_left_out(loaded)
    laboratory = Laboratory(name)
    plan = laboratory.up(loaded, start_nodes=not plain, network=control == "network")
    _warn(laboratory.advice())
    nodes, pods = len(plan.nodes), len(plan.pods)
    click.echo(f"{nodes} nodes and {pods} pods are up{', without node proxies' if plain else ''}.")
    click.echo(f"Look at them: ztunnel demo status{_option(name)}")
    if source == BUNDLED:
        click.echo(f"Call through them: ztunnel demo exec{_option(name)} load -- curl -s http://frontend/")
    click.echo(f"Remove them: ztunnel demo down{_option(name)}")


@demo.command()
@click.option("--keep", is_flag=True, help="Do not remove the laboratory afterwards.")
@click.option("--only", default="", metavar="N,N", help="Numbers of the claims to measure; all without it.")
@_named
def run(keep: bool, only: str, name: str) -> None:
    """Measure what a mesh promises, and show it as a table.

    This starts the bundled shop and removes it at the end.
    The exit status is 0 only if every claim holds.
    """
    # Here, because every other command starts faster without them.
    from ztunnel.demo.claims.catalog import CLAIMS
    from ztunnel.demo.claims.claim import parse_numbers, select
    from ztunnel.demo.claims.perform import TTL_SECONDS, perform

    chosen = select(CLAIMS, parse_numbers(only))
    holds = perform(Laboratory(name), chosen, keep=keep)
    click.echo(f"\nIt is still up; its certificates live {TTL_SECONDS} s." if keep else "\nTry it yourself:")
    if not keep:
        click.echo(f"Bring it up: ztunnel demo up{_option(name)}")
    click.echo(f"Look at it: ztunnel demo status{_option(name)}")
    click.echo(f"Call through it: ztunnel demo exec{_option(name)} load -- curl -s http://frontend/")
    click.echo(f"See what its proxies say: ztunnel demo logs{_option(name)} node-1")
    click.echo(f"Remove it: ztunnel demo down{_option(name)}")
    if not holds:
        raise SystemExit(1)


@demo.command()
@click.option("--keep", is_flag=True, help="Do not remove the laboratory afterwards.")
@click.option("--only", default="", metavar="N,N", help="Numbers of the steps to walk; all without it.")
@_named
def bookinfo(keep: bool, only: str, name: str) -> None:
    """Walk through what a waypoint does with Bookinfo, and show it as a table.

    Four services behind a waypoint: traffic is shifted, routed by user, delayed, copied, tried again.
    The exit status is 0 only if every step does what it says.
    """
    from ztunnel.demo.bookinfo.catalog import STEPS
    from ztunnel.demo.bookinfo.walk import walk
    from ztunnel.demo.claims.claim import parse_numbers, select

    holds = walk(Laboratory(name), select(STEPS, parse_numbers(only)), keep=keep)
    if keep:
        click.echo("\nIt is still up, with the manifests of the last step.")
        call = "curl -s http://productpage:9080/productpage"
        click.echo(f"Look at its page: ztunnel demo exec{_option(name)} deploy/client -- {call}")
        click.echo(f"Remove it: ztunnel demo down{_option(name)}")
    if not holds:
        raise SystemExit(1)


@demo.command()
@_named
def down(name: str) -> None:
    """Remove the laboratory, whatever is left of it."""
    there = Laboratory(name).down()
    click.echo(
        f"Laboratory {name!r} is removed." if there else f"There is nothing left of a laboratory {name!r}."
    )


@demo.command()
@click.argument("node")
@click.option("--kill", is_flag=True, help="By SIGKILL first, as in a crash.")
@_named
def restart(node: str, kill: bool, name: str) -> None:
    """Replace the proxy of a node, as a rolling update does: no new connection fails.

    The new one, with the environment of this command, takes over while the old one runs, which then drains.
    One that does not run is started.
    """
    Laboratory(name).restart_node(node, kill=kill)
    click.echo(f"The proxy of {node} is ready.")


@demo.command()
@click.option("-o", "--output", "form", type=click.Choice(["text", "json"]), default="text", help="Format.")
@_named
def status(form: str, name: str) -> None:
    """Show nodes, pods and what is wrong.

    For each node its proxy; for each pod whether it is in the mesh, and why not if it has to be; faults.
    """
    found = Laboratory(name).survey()
    click.echo(as_json(found) if form == "json" else as_text(found))


@demo.command()
@click.option(
    "-f", "--filename", "sources", multiple=True, required=True, help="A file, a directory, or - for stdin."
)
@click.option("--delete", is_flag=True, help="Remove the objects.")
@_named
def apply(sources: tuple[str, ...], delete: bool, name: str) -> None:
    """Add or change objects.

    Labels and policies are changed in place, pods are started and stopped. If anything is wrong, it is shown
    with file and line, and nothing is changed.
    """
    loaded = load([Path(source) for source in sources])
    _tell_left_out(loaded)
    laboratory = Laboratory(name)
    with _warning(laboratory):
        for line in laboratory.apply_all(loaded.manifests, delete=delete):
            click.echo(line)


@demo.command()
@click.argument("kind")
@click.argument("object_name", metavar="[NAMESPACE/]NAME")
@click.argument("changes", metavar="KEY=VALUE|KEY-", nargs=-1, required=True)
@_named
def label(kind: str, object_name: str, changes: tuple[str, ...], name: str) -> None:
    """Set or remove labels of an object.

    `label namespace shop istio.io/dataplane-mode-` removes one.
    """
    wanted: dict[str, str | None] = {}
    for change in changes:
        key, sets, value = change.partition("=")
        if not sets and not change.endswith("-"):
            raise click.UsageError(f"neither KEY=VALUE nor KEY-: {change!r}")
        wanted[key if sets else change[:-1]] = value if sets else None
    laboratory = Laboratory(name)
    with _warning(laboratory):
        laboratory.label(kind, object_name, wanted)
    click.echo(f"{kind} {object_name} labelled")


@demo.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-n", "--namespace", help="The pod's namespace, if its name alone does not say it.")
@_named
@click.argument("pod")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(namespace: str | None, name: str, pod: str, command: tuple[str, ...]) -> None:
    """Run a command in a pod.

    `exec -n shop load -- curl -s http://orders/`, or `exec deploy/web -- sh` in the first pod of a workload.
    """
    argv = command[1:] if command[0] == "--" else command
    words, environment = Laboratory(name).command_in(f"{namespace}/{pod}" if namespace else pod, argv)
    os.execvpe(words[0], words, {**environment, "TERM": os.environ.get("TERM", "dumb")})


@demo.command()
@click.argument("target", metavar="NODE|POD")
@click.option("-f", "--follow", is_flag=True, help="Follow the log as it grows.")
@_named
def logs(target: str, follow: bool, name: str) -> None:
    """Print the log of a node's proxy or of a pod."""
    laboratory = Laboratory(name)
    cluster = laboratory.cluster()
    nodes = [node.name for node in cluster.nodes]
    if target in nodes:
        log = laboratory.names.node_directory(target) / "log"
    else:
        try:
            pod = laboratory.pod(target)
        except Ambiguous:
            raise
        except LaboratoryFailed:
            known = [*nodes, *(pod.name for pod in cluster.pods)]
            raise unknown("node or pod", target, known) from None
        log = laboratory.names.pod_log(pod.namespace, pod.name)
    if not log.exists():
        raise LaboratoryFailed(f"{target} has written nothing yet")
    if follow:
        os.execvp("tail", ["tail", "-n", "+1", "-f", str(log)])
    click.echo(log.read_text(errors="replace"), nl=False)


def _tell_left_out(loaded: Loaded) -> None:
    """What is not read is no error, and not silence either."""
    for fault in loaded.left_out:
        click.echo(str(fault), err=True)


@contextmanager
def _warning(laboratory: Laboratory) -> Iterator[None]:
    """Of a change, say what it means that the user may not know."""
    known = laboratory.advice()
    yield
    _warn(line for line in laboratory.advice() if line not in known)


def _warn(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(f"Warning: {line}", err=True)


def _option(name: str) -> str:
    return "" if name == "lab" else f" --name {name}"
