"""Show whether each node proxy has taken over what the control plane serves."""

from __future__ import annotations

import json

import click

from ztunnel.analyze.fetch import NoAnswer, fetch
from ztunnel.analyze.forward import CONTROL, NAMESPACE, NoCluster, forwarded, list_pods, node_pods
from ztunnel.analyze.sync import ProxySync, as_text, as_values, join, read_sync
from ztunnel.cli._pages import SYNC
from ztunnel.cli._progress import progress
from ztunnel.cli.options import echo, formatted

_PORT = 15014


@click.command()
@click.option("--system-namespace", default=NAMESPACE, show_default=True, help="Where control planes run.")
@click.option("--address", default="", metavar="HOST:PORT", help="Of one control plane, asked as it is.")
@formatted
def proxy_status(system_namespace: str, address: str, form: str) -> None:
    """Show whether each node proxy has taken over what is served: SYNCED, STALE or NOT SENT.

    Every control plane of the cluster that kubectl reaches is asked. The exit status is 0 where all node
    proxies are synced, else 1.
    """
    troubles: list[str] = []
    if address:
        found = join(_read(address, address, troubles), {})
    else:
        found = _of_cluster(system_namespace, troubles)
    if form == "text":
        click.echo(as_text(found, troubles))
    else:
        echo(as_values(found, troubles), form)
    if troubles or not all(one.good for one in found):
        raise SystemExit(1)


def _of_cluster(namespace: str, troubles: list[str]) -> list[ProxySync]:
    try:
        controls = [pod["metadata"]["name"] for pod in list_pods(namespace, CONTROL)]
        pods = {f"{pod}.{namespace}": node for node, pod in node_pods(namespace).items()}
    except NoCluster as error:
        raise click.ClickException(str(error)) from error
    if not controls:
        raise click.ClickException(
            f"there is no control plane of ours in namespace {namespace}: name another with "
            "--system-namespace; one of Istio's is asked by istioctl proxy-status"
        )
    found: list[ProxySync] = []
    with progress("asking the control planes") as shown:
        for name in controls:
            shown.tell(f"asking {name}")
            try:
                with forwarded(name, _PORT, namespace) as address:
                    found += _read(name, address, troubles)
            except NoCluster as error:
                troubles.append(f"{name}: {error}")
    return join(found, pods)


def _read(name: str, address: str, troubles: list[str]) -> list[ProxySync]:
    try:
        return read_sync(name, json.loads(fetch(address, SYNC)))
    except (NoAnswer, ValueError) as error:
        troubles.append(f"{name}: {str(error).removeprefix(f'{address}: ')}")
        return []
