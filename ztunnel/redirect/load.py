"""Make the kernel run our programs: compiled once, cached, pinned, and left alone while they are current."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import Enum
from pathlib import Path

from ztunnel.errors import Unsupported
from ztunnel.kernel import bpf, btf, cgroup, packet, probe
from ztunnel.kernel.compile import Compiled, compile_text, headers_tree, parse_compiled
from ztunnel.redirect.carry import differ
from ztunnel.redirect.plan import HOOKS, Pins, RedirectSettings, Target
from ztunnel.redirect.replace import Fill, clear, install, nothing_to_fill, replace
from ztunnel.redirect.source import assemble, fingerprint


class Loaded(Enum):
    """What came of it. `LEFT`: it is compiled, and whoever takes over next from the proxy that serves puts it
    in place."""

    ANEW = "anew"
    CURRENT = "current"
    LEFT = "left"

    def __bool__(self) -> bool:
        """Whether anything was loaded."""
        return self is Loaded.ANEW


def ensure_loaded(
    settings: RedirectSettings, fill: Fill = nothing_to_fill, *, is_served: bool = False
) -> Loaded:
    """The programs of these sources and settings run and are pinned under `settings.pins`.

    Blocks: milliseconds from the cache, seconds with the compiler. Where what is pinned is current, nothing
    is compiled, loaded or attached, and every link keeps its id.

    Args:
        fill: as `replace.replace`.
        is_served: a proxy goes on using the maps that are pinned. Where theirs is another layout nothing is
            changed: what it would enter there from now on, new programs would not see.

    Raises:
        Unsupported: this machine lacks something, or what runs cannot be taken over; the message names the
            fix.
        OSError: the cache cannot be made.
    """
    probe.require_root()
    root = settings.cgroup or cgroup.find_root()
    source, print_, version = _wanted(settings, root)
    with _locked(settings.cache, settings.pins.name):
        if _is_current(Pins(settings.pins), version):
            return Loaded.CURRENT
        probe.require_redirection(settings.pins)
        compiled = _compiled(settings.cache, print_, source)
        if is_served and differ(Pins(settings.pins).maps, compiled.maps):
            return Loaded.LEFT
        _put(settings, root, compiled, version, fill)
    return Loaded.ANEW


def _put(settings: RedirectSettings, root: Path, compiled: Compiled, version: str, fill: Fill) -> None:
    pins = Pins(settings.pins)
    cgroup_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if pins.root.is_dir():
            replace(pins, compiled, cgroup_fd, version, fill)
        else:
            install(pins, compiled, cgroup_fd, version)
    except OSError as error:
        raise Unsupported(f"the kernel refuses the redirection: {error.strerror or error}") from error
    finally:
        os.close(cgroup_fd)


def require_loaded(settings: RedirectSettings, fill: Fill | None = None) -> None:
    """What is pinned is current: for a process that has no compiler. Where `ensure_loaded` has left it to
    whoever takes over, that is us if there is a `fill`, and it is put in place. So it is where what was
    loaded has been removed since: a loader does not run again for a container that is restarted.

    Raises:
        Unsupported: it is not; the message names what loads it.
    """
    root = settings.cgroup or cgroup.find_root()
    _, print_, version = _wanted(settings, root)
    if not probe.lies_on_bpffs(settings.pins):
        raise Unsupported(f"{settings.pins} is on no bpffs: mount the host's /sys/fs/bpf at /sys/fs/bpf")
    pins = Pins(settings.pins)
    if _is_current(pins, version):
        return
    compiled = _cached(settings.cache / f"{print_}.json")
    if fill is None or compiled is None:
        found = "are of another version or settings" if pins.root.is_dir() else "are not there"
        raise Unsupported(
            f"the programs under {settings.pins} {found}, and this proxy does not load them "
            "(ZTUNNEL_LOAD_PROGRAMS=false): run `ztunnel load` of the same version and node name first"
        )
    with _locked(settings.cache, settings.pins.name):
        if not _is_current(pins, version):
            _put(settings, root, compiled, version, fill)


def ensure_compiled(settings: RedirectSettings) -> None:
    """What `ensure_loaded` would load is in the cache, so that it takes milliseconds. Blocks.

    Raises:
        Unsupported, OSError: as `ensure_loaded`.
    """
    source, print_, version = _wanted(settings, settings.cgroup or cgroup.find_root())
    with _locked(settings.cache, settings.pins.name):
        if not _is_current(Pins(settings.pins), version):
            _compiled(settings.cache, print_, source)


def hold(pins: Path) -> int:
    """A descriptor by which it is seen that a process uses these pins, until it is closed or the process
    ends.

    Raises:
        BlockingIOError: they are being removed. OSError: there are none.
    """
    fd = os.open(pins, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


def is_held(pins: Path) -> bool:
    """Whether a process has them by `hold`."""
    try:
        fd = os.open(pins, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def remove(pins: Path) -> None:
    """Detach and remove everything of this node; live connections go on, new ones are no longer
    redirected."""
    for each in (Pins(pins), Pins(pins).under_construction()):
        clear(each)


def kernel_flags() -> tuple[str, ...]:
    """What this kernel tells of itself as bpf/lib/config.h knows it. Without, reports of calls that leave the
    mesh are less exact, what pods only forward is stopped by other means, and a policy does not end what is
    multipath TCP at both ends."""
    told = packet.packet_offsets()
    sock = btf.sock_offsets()
    if sock is not None:
        told |= {"SK_ERR_AT": sock[0], "SK_FLAGS_AT": sock[1]}
    multipath = btf.multipath_offset()
    if multipath is not None:
        told["IS_MPTCP_AT"] = multipath
    return tuple(f"-D{name}={offset}" for name, offset in told.items())


def read_sources() -> dict[str, str]:
    """The eBPF sources by path below `bpf/`: beside this file where installed, else at the top of the
    checkout."""
    here = Path(__file__)
    root = next(place for place in (here.parent / "bpf", here.parents[2] / "bpf") if place.is_dir())
    return {str(file.relative_to(root)): file.read_text() for file in sorted(root.rglob("*.[ch]"))}


def _wanted(settings: RedirectSettings, root: Path) -> tuple[tuple[str, tuple[str, ...]], str, str]:
    """The text with its compiler flags, the fingerprint of both, and the version that is installed with
    them."""
    text, flags = assemble(read_sources()), (*settings.compiler_flags(), *kernel_flags())
    print_ = fingerprint(text, flags)
    return (text, flags), print_, f"{print_}-{cgroup.cgroup_id(root)}"


def _is_current(pins: Pins, version: str) -> bool:
    """Whether this version was completely installed, and is still attached."""
    try:
        if os.readlink(pins.version) != version:
            return False
        for hook in HOOKS:
            if hook.target is Target.CGROUP:
                link = bpf.open_pinned(pins.links / hook.name)
                attached = bpf.link_info(link).target
                bpf.close(link)
                if not attached:
                    return False
    except OSError:
        return False
    return True


def _cached(place: Path) -> Compiled | None:
    """None where it is not there, or was cut short."""
    try:
        return parse_compiled(place.read_text())
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _compiled(cache: Path, print_: str, source: tuple[str, tuple[str, ...]]) -> Compiled:
    place = cache / f"{print_}.json"
    cached = _cached(place)
    if cached is not None:
        return cached
    text, flags = source
    compiled = compile_text(text, flags, [hook.name for hook in HOOKS], headers_tree(cache))
    beside = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        beside.write_text(compiled.render())
        beside.rename(place)
    except OSError:  # no room: it is compiled again the next time
        beside.unlink(missing_ok=True)
    return compiled


@contextmanager
def try_lock(settings: RedirectSettings) -> Iterator[bool]:
    """The loader's lock, where nobody has it: whether we have it within the block. Never waits."""
    with ExitStack() as stack:
        try:
            lock = stack.enter_context((settings.cache / f".{settings.pins.name}.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # a loader has it, or the cache has gone
            yield False
            return
        yield True


@contextmanager
def _locked(cache: Path, name: str) -> Iterator[None]:
    """One loader at a time for one node."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
