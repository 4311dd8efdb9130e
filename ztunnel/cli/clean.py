"""Remove what node proxies left in the kernel: links, pins, maps, and the rules in pods."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from ztunnel.errors import Unsupported
from ztunnel.kernel.netlink import unroute_marked
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.probe import require_root
from ztunnel.redirect.attach import Redirection
from ztunnel.redirect.load import remove
from ztunnel.redirect.plan import pin_name

_PINS = Path("/sys/fs/bpf/ztunnel")
_NAMED = Path("/run/netns")
_PROC = Path("/proc")


@click.command()
@click.option("--node", metavar="NAME", help="Only what the proxy of this node left.")
@click.option("--pins", metavar="DIR", type=click.Path(path_type=Path), help="Only what is pinned there.")
def clean(node: str | None, pins: Path | None) -> None:
    """Remove every link, pin and map of node proxies, and their rules in pods. Pods are out of the mesh then.

    Stop the proxy first. Connections that live go on; new ones are no longer redirected.
    """
    require_root()
    if pins is not None:
        chosen = [pins]
    elif node is not None:
        chosen = [_PINS / pin_name(node)]
    else:
        chosen = sorted(_PINS.iterdir()) if _PINS.is_dir() else []
    found = [each for each in chosen if each.is_dir()]
    if not found:
        click.echo("Nothing is there to be removed.")
        return
    for each in found:
        click.echo(f"{each}: {_clean(each)} pods taken out of the mesh, everything removed")
    if _PINS.is_dir() and not any(_PINS.iterdir()):
        _PINS.rmdir()


def _clean(pins: Path) -> int:
    """Pods first: while the links stand, their new connections are refused rather than half redirected."""
    try:
        with Redirection.open(pins) as redirection:
            cookies = set(redirection.enrolled())
            for cookie in cookies:
                redirection.withdraw_cookie(cookie)
    except Unsupported:  # an installation that was never finished has no maps to read
        cookies = set()
    remaining = set(cookies)
    for path in _namespaces():
        if not remaining:
            break
        try:
            with NetworkNamespace.open(path) as netns:
                if netns.cookie in remaining:
                    remaining.discard(netns.cookie)
                    unroute_marked(netns)
        except OSError:
            continue
    remove(pins)
    return len(cookies)


def _namespaces() -> Iterator[Path]:
    """Every network namespace that has a name or a process."""
    if _NAMED.is_dir():
        yield from _NAMED.iterdir()
    yield from (path / "ns/net" for path in _PROC.iterdir() if path.name.isdigit())
