"""Loads the redirection that a node's settings ask for, or sees to it that `ztunnel load` has done so."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from ztunnel.config import Settings
from ztunnel.errors import PeerError, Unsupported
from ztunnel.kernel import capability, cgroup
from ztunnel.kernel.probe import require_root
from ztunnel.kernel.rewritten import call_seen
from ztunnel.kernel.sockets import own_cgroup_id
from ztunnel.model.address import Endpoint, parse_ip
from ztunnel.pods.listen import Listeners
from ztunnel.redirect.enroll import fill_listeners
from ztunnel.redirect.exempt import IN_ROOT
from ztunnel.redirect.find import list_programs, whose
from ztunnel.redirect.load import Loaded, ensure_loaded, require_loaded
from ztunnel.redirect.plan import Pins, RedirectSettings, pin_name
from ztunnel.redirect.repair import programs_beside
from ztunnel.redirect.replace import Fill, nothing_to_fill

_PINS = Path("/sys/fs/bpf/ztunnel")


def redirection_of(settings: Settings) -> RedirectSettings:
    """Where the programs of this node are pinned, and where they are kept compiled."""
    pins = settings.pins or _PINS / pin_name(settings.node)
    return RedirectSettings(pins=pins, cache=settings.cache_dir / "bpf")


def service_of(environment: Mapping[str, str]) -> Endpoint | None:
    """The Kubernetes API as a pod of its cluster calls it, which is a service's address; None outside."""
    host, port = (environment.get(f"KUBERNETES_SERVICE_{part}", "") for part in ("HOST", "PORT"))
    try:
        return Endpoint(parse_ip(host), int(port))
    except (PeerError, ValueError):
        return None


def load_programs(
    settings: Settings,
    service: Endpoint | None = None,
    fill: Fill = nothing_to_fill,
    *,
    is_served: bool = False,
) -> Loaded:
    """As `ensure_loaded`, for this node, from anywhere but a container that sees only its own cgroup. Blocks.

    Args:
        service: where we are a pod of the cluster, a service's address: what becomes of a call of it becomes
            of the pods' calls.
        fill, is_served: as `ensure_loaded`.

    Raises:
        Unsupported: the machine lacks something, or forbids it; or others redirect the calls of pods, too.
    """
    require_root()
    root = cgroup.find_root()
    if own_cgroup_id() == cgroup.cgroup_id(root) and cgroup.is_view(root):
        raise Unsupported(_view(root))
    if service is not None:
        refuse_rewritten(settings, root, service)
    try:
        return ensure_loaded(redirection_of(settings), fill, is_served=is_served)
    except OSError as error:
        raise Unsupported(f"the redirection cannot be loaded: {_why(error, settings.cache_dir)}") from error


def _why(error: OSError, cache: Path) -> str:
    place = error.filename
    if not isinstance(place, str | os.PathLike) or not Path(place).is_relative_to(cache):
        return str(error)
    fix = "compiled programs need a directory that can be written: set ZTUNNEL_CACHE_DIR"
    return f"{place}: {error.strerror}: {fix}"


def refuse_rewritten(settings: Settings, root: Path, service: Endpoint) -> None:
    """Raises Unsupported where a call of this process to a service goes elsewhere by a program of somebody
    else's: the mesh would not see the services that pods call, and pods could be sent past it."""
    seen = call_seen(service)
    if seen is None or seen == service:
        return
    ours, hook = programs_beside(Pins(redirection_of(settings).pins)), f"connect{service.ip.version}"
    own = cgroup.own_path(root)
    above = {
        "/",
        *(f"/{each.relative_to(root)}" for each in (own, *own.parents) if each.is_relative_to(root)),
    }
    there = [each for each in list_programs(root, ours) if each.hook == hook and each.cgroup in above]
    names = ", ".join(each.text for each in there) or "a program that cannot be seen from here"
    fix = next((text for each in there if (text := whose(each.name))), "")
    raise Unsupported(
        f"others change where pods call to: a call of {service} goes to {seen}, by {names} on cgroup/"
        f"{hook}{fix}. Pods are not enrolled beside that: have it leave pods alone"
    )


def prepare(
    settings: Settings, listeners: Mapping[int, Listeners] | None = None
) -> tuple[RedirectSettings, Path]:
    """Our programs run; the proxy may open them: their place, and the root of cgroup v2. Blocks.

    Args:
        listeners: what a predecessor has handed over, by the cookies of pods: no call is refused while the
            programs change.

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
    fill = partial(fill_listeners, listeners={pod: each.slots() for pod, each in (listeners or {}).items()})
    if settings.load_programs:
        load_programs(settings, fill=fill)
    else:
        require_loaded(wanted, fill)
    return wanted, root


def _view(root: Path) -> str:
    return (
        f"{root} shows this container's own cgroup, not the machine's: mount the host's /sys/fs/cgroup "
        "at /sys/fs/cgroup (hostPath)"
    )
