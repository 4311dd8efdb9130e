"""Loads the redirection that a node's settings ask for, or sees to it that `ztunnel load` has done so."""

from __future__ import annotations

from pathlib import Path

from ztunnel.config import Settings
from ztunnel.errors import Unsupported
from ztunnel.kernel import capability, cgroup
from ztunnel.kernel.probe import require_root
from ztunnel.kernel.sockets import own_cgroup_id
from ztunnel.redirect.exempt import IN_ROOT
from ztunnel.redirect.load import ensure_loaded, require_loaded
from ztunnel.redirect.plan import RedirectSettings, pin_name

_PINS = Path("/sys/fs/bpf/ztunnel")


def redirection_of(settings: Settings) -> RedirectSettings:
    """Where the programs of this node are pinned, and where they are kept compiled."""
    pins = settings.pins or _PINS / pin_name(settings.node)
    return RedirectSettings(pins=pins, cache=settings.cache_dir / "bpf")


def load_programs(settings: Settings) -> bool:
    """As `ensure_loaded`, for this node, from anywhere but a container that sees only its own cgroup. Blocks.

    Raises:
        Unsupported: the machine lacks something, or forbids it.
    """
    require_root()
    root = cgroup.find_root()
    if own_cgroup_id() == cgroup.cgroup_id(root) and cgroup.is_view(root):
        raise Unsupported(_view(root))
    try:
        return ensure_loaded(redirection_of(settings))
    except OSError as error:
        raise Unsupported(f"the redirection cannot be loaded: {error}") from error


def prepare(settings: Settings) -> tuple[RedirectSettings, Path]:
    """Our programs run; the proxy may open them: their place, and the root of cgroup v2. Blocks.

    Raises:
        Unsupported: as `load_programs`; or this process is where it cannot be told from others.
    """
    require_root()
    capability.require(capability.PROXY, "the node proxy")
    root = cgroup.find_root()
    if own_cgroup_id() == cgroup.cgroup_id(root):
        fix = f"{IN_ROOT}, such as: mkdir {root}/ztunnel && echo $$ > {root}/ztunnel/cgroup.procs"
        raise Unsupported(_view(root) if cgroup.is_view(root) else fix)
    wanted = redirection_of(settings)
    if settings.load_programs:
        load_programs(settings)
    else:
        require_loaded(wanted)
    return wanted, root


def _view(root: Path) -> str:
    return (
        f"{root} shows this container's own cgroup, not the machine's: mount the host's /sys/fs/cgroup "
        "at /sys/fs/cgroup (hostPath)"
    )
