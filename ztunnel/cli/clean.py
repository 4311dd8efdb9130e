"""Remove what node proxies left in the kernel: links, pins, maps, and what they changed in pods."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from ztunnel.errors import Unsupported
from ztunnel.kernel.bpf import Map, open_pinned
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.probe import require_bpffs, require_root
from ztunnel.pods.prepare import disown
from ztunnel.redirect.attach import Redirection
from ztunnel.redirect.layout import NUMBER, SMALL
from ztunnel.redirect.load import remove
from ztunnel.redirect.plan import Pins, RedirectSettings, pin_name

_PINS = Path("/sys/fs/bpf/ztunnel")
_NAMED = Path("/run/netns")
_PROC = Path("/proc")
_OURS = {"maps", "programs", "+programs", "links", "pods", "forwards", "version"}


@click.command()
@click.option("--node", metavar="NAME", help="Only what the proxy of this node left.")
@click.option("--pins", metavar="DIR", type=click.Path(path_type=Path), help="Only what is pinned there.")
@click.option("--force", is_flag=True, help="Also while a proxy runs; its pods leave the mesh.")
def clean(node: str | None, pins: Path | None, force: bool) -> None:
    """Remove every link, pin and map of node proxies, and their rules in pods. The pods leave the mesh.

    Stop the proxy first. Connections that live go on; new ones are no longer redirected.
    """
    require_root()
    if node is not None and pins is not None:
        raise click.UsageError("--node and --pins say the same: give one of them")
    found = find_installations(node, pins)
    if not found:
        click.echo("Nothing is there to be removed.")
        return
    if not force:
        refuse_running(found)
    for each in found:
        click.echo(f"{each}: {clean_up(each)} pods removed from the mesh, everything unpinned")
    if _PINS.is_dir() and not any(_PINS.iterdir()):
        _PINS.rmdir()


def find_installations(node: str | None = None, pins: Path | None = None, root: Path = _PINS) -> list[Path]:
    """The directories that node proxies have, or began to make: one node's, those of a place, or all.

    Raises:
        Unsupported: what is at `pins` is not a node proxy's.
    """
    if pins is not None:
        require_bpffs(pins)
        places = _whole_and_begun(pins)
    elif node is not None:
        places = _whole_and_begun(root / pin_name(node))
    else:
        places = sorted(root.iterdir()) if root.is_dir() else []
    found = [each for each in places if each.is_dir()]
    for each in found:
        if others := sorted(path.name for path in each.iterdir() if path.name not in _OURS):
            raise Unsupported(f"{each} is not a node proxy's, because {others[0]!r} is in it: name its DIR")
    return found


def _whole_and_begun(pins: Path) -> list[Path]:
    return [pins, Pins(pins).under_construction().root]


def refuse_running(found: Iterable[Path]) -> None:
    """Raises Unsupported if a proxy renews the lease of one of these; one that was killed does for 2 s."""
    lease_seconds = RedirectSettings(_PINS).lease_seconds
    running = [each for each in found if lease_age_seconds(each) < lease_seconds]
    if running:
        raise Unsupported(
            f"the proxy of {', '.join(map(str, running))} runs, or did until two seconds ago: "
            "stop it first, or give --force"
        )


def lease_age_seconds(pins: Path) -> float:
    """Since a proxy confirmed its verdicts; since the machine started if none ever did."""
    try:
        with Map(open_pinned(Pins(pins).maps / "lease")) as lease:
            renewed = lease.get(SMALL.pack(0))
    except OSError:  # an installation that was never finished
        renewed = None
    return (time.monotonic_ns() - (NUMBER.unpack(renewed)[0] if renewed else 0)) / 1e9


def clean_up(pins: Path) -> int:
    """Remove one installation; how many pods were in it.

    Pods first: while the links stand, their new connections are refused rather than half redirected.
    """
    pods = Pins(pins).pods
    cookies = {int(each.name) for each in pods.iterdir() if each.name.isdigit()} if pods.is_dir() else set()
    try:
        with Redirection.open(pins) as redirection:
            cookies |= set(redirection.enrolled())
            for cookie in cookies:
                redirection.withdraw_cookie(cookie)
    except Unsupported:  # not whole: without maps no pod is redirected
        pass
    _disown(set(cookies))
    remove(pins)
    return len(cookies)


def _disown(cookies: set[int]) -> None:
    """What was changed in the namespaces of these pods, as far as they are still there."""
    seen: set[int] = set()
    for path in _namespaces():
        if not cookies:
            return
        try:
            inode = path.stat().st_ino
            if inode in seen:
                continue
            seen.add(inode)
            with NetworkNamespace.open(path) as netns:
                if netns.cookie in cookies:
                    cookies.discard(netns.cookie)
                    disown(netns)
        except OSError:  # it has just gone, or is a name without a namespace
            continue


def _namespaces() -> Iterator[Path]:
    """Every network namespace that has a name or a process."""
    if _NAMED.is_dir():
        yield from _NAMED.iterdir()
    yield from (path / "ns/net" for path in _PROC.iterdir() if path.name.isdigit())
