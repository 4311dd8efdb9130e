"""The commands of `ztunnel waypoint` about Gateways in a cluster."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any, Final, TypeVar

import click
import trio
import yaml

from ztunnel.analyze import waypoints
from ztunnel.analyze.waypoints import CLASSES, TRAFFIC, Row, manifest, row_of, rows, users
from ztunnel.cli.options import echo, formatted
from ztunnel.control.waypoints.use_waypoint import USE
from ztunnel.kube.call import APPLY, MERGE, Api, Value
from ztunnel.kube.connect import open_api
from ztunnel.kube.failure import ApiFailure, Request
from ztunnel.kube.resource import (
    GATEWAYS,
    NAMESPACES,
    PODS,
    SERVICE_ENTRIES,
    SERVICES,
    WORKLOAD_ENTRIES,
)

_MANAGER: Final = {"fieldManager": "ztunnel-cli"}
_LOOK_SECONDS: Final = 0.3
_NO_SUCH_KIND: Final = 404
T = TypeVar("T")
Command = Callable[..., Any]

_namespace = click.option("-n", "--namespace", default="default", show_default=True, help="Of the waypoint.")
_everywhere = click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Of all namespaces.")
_revision = click.option(
    "--revision", "-r", default="", help="Of the control plane that is to serve it (istio.io/rev)."
)


def _asked(command: Command) -> Command:
    """Options that say what waypoint is meant."""
    for option in (
        click.option("--class", "of_class", type=click.Choice(CLASSES), default=CLASSES[0]),
        click.option("--for", "traffic", type=click.Choice(TRAFFIC), help="What calls it is for."),
        click.option("--name", default="waypoint", show_default=True),
        _revision,
        _namespace,
    ):  # fmt: skip
        command = option(command)
    return command


def _run(act: Callable[[Api], Awaitable[T]]) -> T:
    """With the API server of KUBECONFIG; what it refuses is one sentence."""

    async def run() -> T:
        async with open_api(os.environ.get("KUBECONFIG", "")) as api:
            return await act(api)

    try:
        return trio.run(run)
    except* ApiFailure as group:
        raise click.ClickException(str(_first(group))) from None


def _first(group: BaseExceptionGroup[ApiFailure]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


@click.command()
@_asked
def generate(namespace: str, name: str, traffic: str | None, revision: str, of_class: str) -> None:
    """Print the Gateway of a waypoint."""
    made = manifest(name, namespace, traffic or "", revision, of_class)
    click.echo(yaml.safe_dump(made, sort_keys=False), nl=False)


@click.command()
@_asked
@click.option("--enroll-namespace", "enroll", is_flag=True, help="Label the namespace with it.")
@click.option("--overwrite", is_flag=True, help="Also where another one is named, or has the name.")
@click.option("--wait", "waits", is_flag=True, help="Until it serves.")
@click.option("--waypoint-timeout", "seconds", default=90.0, show_default=True, help="To wait, in seconds.")
def apply(namespace: str, enroll: bool, overwrite: bool, waits: bool, seconds: float, **said: Any) -> None:
    """Have a waypoint run.

    Calls go through it once it is ready; until then they go as before. From then on they go through it or are
    refused, for as long as labels name it.
    """
    wanted = manifest(said["name"], namespace, said["traffic"] or "", said["revision"], said["of_class"])
    text = f"waypoint {namespace}/{said['name']}"

    async def act(api: Api) -> None:
        if enroll:
            space = await api.get(NAMESPACES, namespace)
            warning, refusal = waypoints.enrolment(space, said["name"], overwrite=overwrite)
            if refusal:
                raise click.ClickException(refusal)
            if warning:
                click.echo(f"Warning: {warning}", err=True)
        await _apply(api, wanted, overwrite=overwrite)
        click.echo(f"{text} applied")
        if waits:
            await _wait(api, wanted, seconds)
            click.echo(f"{text} is ready")
        if enroll:
            request = Request("patch", NAMESPACES, "", namespace)
            await api.patch(request, {"metadata": {"labels": {USE: said["name"]}}}, MERGE, _MANAGER)
            click.echo(f'namespace {namespace} labeled with "{USE}: {said["name"]}"')

    _run(act)


async def _apply(api: Api, wanted: Value, *, overwrite: bool) -> None:
    meta = wanted["metadata"]
    try:
        found = await api.get(GATEWAYS, meta["name"], meta["namespace"])
    except ApiFailure as failure:
        if failure.code != 404:
            raise
    else:
        of_class = found["spec"].get("gatewayClassName")
        if of_class != wanted["spec"]["gatewayClassName"] and not overwrite:
            text = f"Gateway {meta['namespace']}/{meta['name']} is there, of the class {of_class}"
            raise click.ClickException(f"{text}: --overwrite replaces it")
    request = Request("patch", GATEWAYS, meta["namespace"], meta["name"])
    await api.patch(request, wanted, APPLY, {**_MANAGER, "force": "true"})


async def _wait(api: Api, wanted: Value, seconds: float) -> None:
    meta = wanted["metadata"]
    row: Row | None = None
    with trio.move_on_after(seconds):
        while True:
            row = row_of(await api.get(GATEWAYS, meta["name"], meta["namespace"]))
            if row.programmed == "True":
                return
            await trio.sleep(_LOOK_SECONDS)
    why = f": {row.reason}: {row.message}" if row is not None and row.reason else ""
    raise click.ClickException(
        f"waypoint {meta['namespace']}/{meta['name']} is not ready after {seconds:.0f} s{why}\n"
        "`ztunnel waypoint status` shows it; its pods have the label "
        f"gateway.networking.k8s.io/gateway-name={meta['name']}"
    )


async def _list(api: Api, namespace: str) -> list[Value]:
    found: list[Value] = []
    params = {"limit": "500"}
    while True:
        page = await api.list(GATEWAYS, namespace, params)
        found += page.get("items") or ()
        if not (remains := (page.get("metadata") or {}).get("continue")):
            return found
        params["continue"] = remains


@click.command("list")
@_namespace
@_everywhere
@formatted
def list_(namespace: str, everywhere: bool, form: str) -> None:
    """List the waypoints of a namespace."""
    found = rows(_run(lambda api: _list(api, "" if everywhere else namespace)))
    if form != "text":
        echo([asdict(one) for one in found], form)
    elif not found:
        click.echo("No waypoints found.")
    else:
        click.echo(waypoints.as_list(found, namespaces=everywhere))


@click.command()
@click.argument("name", required=False)
@_namespace
@_everywhere
@formatted
def status(name: str | None, namespace: str, everywhere: bool, form: str) -> None:
    """Show whether waypoints serve, and why not. The exit status is 0 where all do, else 1."""
    found = rows(_run(lambda api: _list(api, "" if everywhere else namespace)))
    found = [one for one in found if name in (None, one.name)]
    if name and not found:
        raise click.ClickException(f"waypoint {namespace}/{name} not found")
    if form != "text":
        echo([asdict(one) for one in found], form)
    elif not found:
        click.echo("No waypoints found.")
    else:
        click.echo(waypoints.as_status(found, namespaces=everywhere))
    if any(one.programmed != "True" for one in found):
        raise SystemExit(1)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All of the namespace.")
@click.option("--force", is_flag=True, help="Also one that labels name: their calls are refused then.")
@_revision
@_namespace
def delete(names: tuple[str, ...], namespace: str, every: bool, force: bool, revision: str) -> None:
    """Delete waypoints by name, all of a namespace, or those of a revision.

    What was made for one goes with it. One that labels name is not deleted: take those off first, so that
    calls go past it before it goes.
    """
    if bool(names) + every + bool(revision) != 1:
        raise click.UsageError("which ones? Give names, --all, or --revision")

    async def act(api: Api) -> list[str]:
        there = rows(await _list(api, namespace))
        chosen = [one.name for one in there if every or one.revision == revision or one.name in names]
        named = [] if force else [text for one in chosen for text in await _users(api, one, namespace)]
        if named:
            raise click.ClickException(
                f"{', '.join(named)}: {USE} names it, and what it names is called by it alone.\n"
                f"Take the label off first (kubectl label namespace {namespace} {USE}-), or have the calls "
                "refused: --force"
            )
        for one in chosen:
            await api.delete(GATEWAYS, one, namespace)
            click.echo(f"waypoint {namespace}/{one} deleted")
        return [one for one in names if one not in chosen]

    missing = _run(act)
    for one in missing:
        click.echo(f"waypoint {namespace}/{one} not found", err=True)
    if missing:
        raise SystemExit(1)


async def _users(api: Api, name: str, namespace: str) -> list[str]:
    objects: list[Value] = []
    for resource in (NAMESPACES, SERVICES, PODS, SERVICE_ENTRIES, WORKLOAD_ENTRIES):
        try:
            found = await api.list(resource, "", {"labelSelector": f"{USE}={name}"})
        except ApiFailure as failure:
            if failure.code == _NO_SUCH_KIND and resource.custom:
                continue
            raise
        # Of metadata alone an empty list comes as null.
        objects += [{**one, "kind": resource.kind} for one in found.get("items") or ()]
    return list(users(name, namespace, objects))


COMMANDS: Final[Mapping[str, click.Command]] = {
    "apply": apply,
    "delete": delete,
    "generate": generate,
    "list": list_,
    "status": status,
}
