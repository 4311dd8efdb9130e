"""Removes what node proxies left in the kernel, wholly or of some pods; knows whether one of them runs."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from ztunnel.errors import Unsupported
from ztunnel.kernel.bpf import Map, open_pinned
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.probe import require_bpffs
from ztunnel.pods.prepare import disown
from ztunnel.redirect.attach import Redirection
from ztunnel.redirect.layout import NUMBER, SMALL
from ztunnel.redirect.load import is_held, remove
from ztunnel.redirect.plan import Pins, RedirectSettings, pin_name
from ztunnel.run.detach import Detachments

PINS = Path("/sys/fs/bpf/ztunnel")
_NAMED = Path("/run/netns")
_PROC = Path("/proc")
_OURS = {"maps", "programs", "+programs", "links", "pods", "forwards", "version"}


_FILES = (".pods", ".detached", ".stalls", ".sock")


def forget_files(pins: str, run_dir: Path) -> None:
    """Remove what proxies with these pins, by the name of their directory (or a pattern of it), have written
    beside their sockets."""
    for path in run_dir.glob(f"{pins}.*"):
        if path.suffix in _FILES:
            path.unlink(missing_ok=True)


def find_installations(node: str | None = None, pins: Path | None = None, root: Path = PINS) -> list[Path]:
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
    """Raises Unsupported if a proxy of one of these runs: it serves, drains, or waits for its world."""
    running = [each for each in found if runs(each)]
    if running:
        raise Unsupported(
            f"the proxy of {', '.join(map(str, running))} runs: it serves, drains or waits for its world. "
            "Stop it first, or give --force"
        )


def runs(pins: Path) -> bool:
    """Whether a proxy holds these pins, or did renew their lease until a moment ago, from a version that
    holds nothing."""
    return is_held(pins) or lease_age_seconds(pins) < RedirectSettings(PINS).lease_seconds


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
    freed = free(pins)
    remove(pins)
    return freed


def uninstall(pins: Path, run_dir: Path) -> int | None:
    """Nobody comes after us: as `clean_up`, and what was detached by hand is forgotten.

    Returns:
        How many pods were in it; None where nothing is pinned, or a proxy uses it: then the mesh has
        been installed again.
    """
    if not pins.is_dir() or is_held(pins):
        return None
    freed = clean_up(pins)
    Detachments(run_dir, pins).forget()
    return freed


def free(pins: Path, only: Collection[int] | None = None) -> int:
    """Have pods leave the mesh, whether a proxy runs or not: all, or those with these namespaces' cookies.
    Their live connections go on. How many there were."""
    cookies = known_pods(pins)
    if only is not None:
        cookies &= set(only)
    try:
        with Redirection.open(pins) as redirection:
            for cookie in cookies:
                redirection.withdraw_cookie(cookie)
            if only is None:
                redirection.starts.rule(None)  # pods that start need not wait for anybody
    except Unsupported:  # not whole: without maps no pod is redirected
        pass
    _disown(set(cookies))
    return len(cookies)


def known_pods(pins: Path) -> set[int]:
    """The cookies of the pods that the kernel redirects, or refuses."""
    pods = Pins(pins).pods
    cookies = {int(each.name) for each in pods.iterdir() if each.name.isdigit()} if pods.is_dir() else set()
    try:
        with Redirection.open(pins) as redirection:
            cookies |= set(redirection.enrolled())
    except Unsupported:
        pass
    return cookies


def cookie_at(path: Path) -> int:
    """Of the network namespace at that path. Raises OSError."""
    with NetworkNamespace.open(path) as netns:
        return netns.cookie


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
