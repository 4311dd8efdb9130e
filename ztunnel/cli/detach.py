"""Take the pods of a node out of the mesh, with proxy, control plane and API server dead or not."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click

from ztunnel.config import Settings
from ztunnel.errors import Unsupported
from ztunnel.kernel.probe import require_root
from ztunnel.redirect.plan import pin_name, pinned_in
from ztunnel.run.detach import Detached, Detachments
from ztunnel.run.remove import PINS, cookie_at, free, known_pods, runs

_RUNNING_SECONDS = 10.0
_LOOK_SECONDS = 0.1


def pinned(command: Callable[..., None]) -> Callable[..., None]:
    """Options of commands that are run on a node: whose pods are meant, and which of them; the command gets
    `node`, `pins`, `pod` and `run_dir`."""
    for option in (
        click.option(
            "--run-dir",
            metavar="DIR",
            type=click.Path(path_type=Path),
            default=Settings().run_dir,
            show_default=True,
            help="The proxy's ZTUNNEL_RUN_DIR.",
        ),
        click.option(
            "--pod", metavar="NAMESPACE/NAME", multiple=True, help="Only this pod; may be repeated."
        ),
        click.option(
            "--pins", metavar="DIR", type=click.Path(path_type=Path), help="Where its proxy pins, instead."
        ),
        click.option("--node", metavar="NAME", help="The node, as its proxy is called."),
    ):
        command = option(command)
    return command


@click.command()
@pinned
@click.option(
    "--netns",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="With --pod: its network namespace, where the proxy was not told of the pod.",
)
def detach(
    node: str | None, pins: Path | None, pod: tuple[str, ...], netns: Path | None, run_dir: Path
) -> None:
    """Take all pods of a node out of the mesh, or some, until `ztunnel attach`: to be run on the node.

    What they call and what calls them is theirs again at once, without mutual TLS and policies. Live
    connections go on. It works where nothing else does: on a node whose proxy is dead, or starts and ends
    again and again; a proxy that runs, or starts later, leaves these pods alone, and says so.
    """
    require_root()
    place = find_pins(node, pins)
    detachments = Detachments(run_dir, place)
    if netns is not None and len(pod) != 1:
        raise click.UsageError("--netns is that of one pod: name it by --pod")
    for each in pod:
        if each.count("/") != 1:
            raise click.UsageError(f"{each!r} is no pod: give NAMESPACE/NAME")
    before = detachments.read()
    detachments.write(Detached(before.all or not pod, before.pods | frozenset(pod)))
    cookies = None if not pod else cookies_of(detachments, pod, netns)
    freed = wait_freed(place, cookies)
    what = "all pods" if not pod else ", ".join(pod)
    click.echo(f"{what} of {place.name} detached, {freed} freed now; `ztunnel attach` undoes it")
    if not place.is_dir():
        others = ", ".join(each.name for each in pinned_in(PINS)) or "none"
        click.echo(f"Warning: nothing is pinned at {place} yet; what is pinned: {others}", err=True)


def find_pins(node: str | None, pins: Path | None) -> Path:
    """Where a node's proxy pins. Raises UsageError."""
    if (node is None) == (pins is None):
        raise click.UsageError("which node is this? Give --node NAME, or --pins DIR")
    return pins if pins is not None else PINS / pin_name(str(node))


def cookies_of(detachments: Detachments, pods: tuple[str, ...], netns: Path | None) -> set[int]:
    """The cookies of these pods' namespaces. Raises Unsupported for one that is not known."""
    names = detachments.remembered()
    cookies: set[int] = set()
    for pod in pods:
        found = {cookie for cookie, name in names.items() if name == pod}
        if netns is not None:
            found = {_cookie(netns)}
        if not found:
            known = ", ".join(sorted(names.values())) or "none"
            raise Unsupported(
                f"{pod} is none of the pods that the proxy had last ({known}): give its namespace by "
                "--netns, such as /proc/PID/ns/net. A proxy that runs leaves it alone from now on"
            )
        cookies |= found
    return cookies


def wait_freed(pins: Path, cookies: set[int] | None) -> int:
    """A proxy that runs frees them itself within some seconds; where none does, or not in time, we do. How
    many there were."""
    wanted = known_pods(pins) if cookies is None else known_pods(pins) & cookies
    deadline = time.monotonic() + _RUNNING_SECONDS
    while runs(pins) and wanted & known_pods(pins) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    if wanted & known_pods(pins):
        free(pins, wanted)
    return len(wanted)


def _cookie(netns: Path) -> int:
    try:
        return cookie_at(netns)
    except OSError as error:
        raise Unsupported(f"{netns} is no network namespace: {error.strerror or error}") from error
