"""Looks at a machine before a node proxy runs on it: what it lacks, and who is in the way.

Every check is made by doing what a proxy would do, as far as that leaves nothing behind."""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from ztunnel.analyze.checks import Check, State
from ztunnel.analyze.hooks import OTHERS as _OTHER
from ztunnel.analyze.hooks import hook_checks
from ztunnel.config import Settings
from ztunnel.errors import Unsupported
from ztunnel.kernel import bpf, cgroup, probe
from ztunnel.kernel.capability import Capability, effective
from ztunnel.kernel.compile import headers_tree, require_compiler
from ztunnel.kernel.netns import current
from ztunnel.kernel.sockets import destroy
from ztunnel.model.address import Endpoint, parse_endpoint
from ztunnel.pods.find import survey
from ztunnel.pods.gather import find_kubepods
from ztunnel.redirect.find import list_programs, whose
from ztunnel.redirect.load import require_loaded
from ztunnel.redirect.plan import FORWARD, Pins, pinned_in
from ztunnel.redirect.repair import programs_beside
from ztunnel.run.load import redirection_of

_OLDEST = (5, 19)
_RETURN_1 = bytes.fromhex("b7000000010000009500000000000000")
_FILES = 65_536
_CAPABILITIES = (
    Capability.NET_ADMIN,
    Capability.NET_RAW,
    Capability.SYS_PTRACE,
    Capability.SYS_ADMIN,
    Capability.BPF,
)

_OTHERS = {
    "/etc/cni/net.d": (
        (
            "istio-cni",
            "Istio's CNI agent redirects pods of ambient namespaces itself: one of the two has to go",
        ),
        ("linkerd-cni", "Linkerd's CNI plugin redirects injected pods: those stay out of this mesh"),
        ("kuma-cni", "Kuma's CNI plugin redirects injected pods: those stay out of this mesh"),
    ),
}

_AS_ROOT = "check as root"
_KERNEL, _PRIVILEGES, _LIMITS = "kernel", "privileges", "limits"


def probe_machine(settings: Settings, etc: Path = Path("/")) -> list[Check]:
    """All checks, in order. Blocks for some 50 ms; where a compiler has to be looked for, a little longer.

    Args:
        settings: those of the node proxy.
        etc: where the root of the machine's files is.
    """
    checks = [_version(os.uname().release), *_kernel(settings), *_privileges(), *_limits(settings)]
    return [*checks, *_neighbours(settings), *_agents(etc)]


def _version(release: str) -> Check:
    numbers = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
    if numbers >= _OLDEST:
        return Check(_KERNEL, "version", State.OK, release)
    oldest = ".".join(map(str, _OLDEST))
    return Check(_KERNEL, "version", State.FAIL, release, f"Linux {oldest} or newer is needed")


def _kernel(settings: Settings) -> Iterator[Check]:
    yield _tried(_KERNEL, "cgroup v2", lambda: str(cgroup.find_root()))
    yield _tried(_KERNEL, "sk_lookup programs", _load_lookup)
    yield _forward_programs()
    yield _bpffs()
    yield _programs(settings)
    yield _destroying()
    if Path("/sys/kernel/btf/vmlinux").exists():
        yield Check(_KERNEL, "BTF", State.OK, "/sys/kernel/btf/vmlinux")
    else:
        fix = "reports of calls that leave the mesh are less exact: a kernel with CONFIG_DEBUG_INFO_BTF"
        yield Check(_KERNEL, "BTF", State.WARN, "not there", fix)


def _tried(category: str, name: str, look: Callable[[], object]) -> Check:
    try:
        return Check(category, name, State.OK, str(look()))
    except Unsupported as error:
        found, _, fix = str(error).partition(": ")
        return Check(category, name, State.FAIL, found, fix)


def _load_lookup() -> str:
    probe.require_sk_lookup()
    return "loaded and dropped"


def _forward_programs() -> Check:
    name = "netfilter programs"
    try:
        bpf.close(bpf.prog_load(bpf.Program("probe", FORWARD.kind, FORWARD.hook, _RETURN_1)))
    except PermissionError:
        return Check(_KERNEL, name, State.WARN, "not tried", _AS_ROOT)
    except OSError as error:
        found = f"{error.strerror}: nftables judge what pods forward"
        if shutil.which("nft"):
            return Check(_KERNEL, name, State.OK, found)
        fix = "apt-get install nftables, or Linux 6.4; until then what pods forward is stopped"
        return Check(_KERNEL, name, State.WARN, f"{error.strerror}, and there is no nft", fix)
    return Check(_KERNEL, name, State.OK, "loaded and dropped")


def _bpffs() -> Check:
    place = Path("/sys/fs/bpf")
    if probe.lies_on_bpffs(place / "ztunnel"):
        return Check(_KERNEL, "bpffs", State.OK, str(place))
    fix = f"it is mounted at the first start; by hand: mount -t bpf bpf {place}"
    return Check(_KERNEL, "bpffs", State.WARN, f"{place} is none", fix)


def _programs(settings: Settings) -> Check:
    """What is pinned is current, or can be compiled."""
    name = "eBPF programs"
    try:
        require_loaded(redirection_of(settings))
    except (Unsupported, OSError):
        pass
    else:
        return Check(_KERNEL, name, State.OK, f"pinned and current: {redirection_of(settings).pins}")
    try:
        require_compiler()
        headers = headers_tree(settings.cache_dir / "bpf")
    except (Unsupported, OSError) as error:
        found, _, fix = str(error).partition(": ")
        return Check(_KERNEL, name, State.FAIL, f"not loaded, and {found}", fix)
    try:
        pinned = _pinned(settings)
        broken = [each for each in pinned if not Pins(each).version.is_symlink()]
    except OSError as error:
        return Check(_KERNEL, name, State.WARN, f"what is pinned: {error.strerror}", _AS_ROOT)
    if broken:
        fix = f"old and new programs run side by side: ztunnel load --node {settings.node or 'NODE'} ends it"
        return Check(_KERNEL, name, State.WARN, f"a load was interrupted: {broken[0]} is not whole", fix)
    there = "" if settings.node or settings.pins else ", ".join(each.name for each in pinned)
    found = f"pinned: {there}" if there else "not loaded yet"
    return Check(_KERNEL, name, State.OK, f"{found}; bcc is there, headers: {headers}")


def _pinned(settings: Settings) -> list[Path]:
    """Where the node's proxy has pinned something; where no node is named, every proxy of this machine.
    Raises OSError."""
    place = redirection_of(settings).pins
    if settings.node or settings.pins:
        return [place] if place.is_dir() else []
    return pinned_in(place)


def _destroying() -> Check:
    """SOCK_DESTROY by doing it, to a connection of our own on loopback."""
    name = "SOCK_DESTROY"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        names = (client.getsockname(), client.getpeername())
        try:
            with current() as here:
                destroyed = destroy(here, *(parse_endpoint(f"{ip}:{port}") for ip, port in names))
        except PermissionError:
            return Check(_KERNEL, name, State.WARN, "not tried", _AS_ROOT)
        except OSError as error:
            fix = "pods of one node talk through tunnels: a kernel with CONFIG_INET_DIAG_DESTROY"
            return Check(_KERNEL, name, State.WARN, str(error.strerror), fix)
    return Check(_KERNEL, name, State.OK if destroyed else State.WARN, "done" if destroyed else "no effect")


def _privileges() -> Iterator[Check]:
    held = effective()
    for each in _CAPABILITIES:
        name = f"CAP_{each.name}"
        if each in held:
            yield Check(_PRIVILEGES, name, State.OK, "held")
        else:
            fix = "run as root, or add it to the container's capabilities"
            yield Check(_PRIVILEGES, name, State.FAIL, "missing", fix)


def _limits(settings: Settings) -> Iterator[Check]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard >= _FILES:
        yield Check(_LIMITS, "descriptors", State.OK, str(hard))
    else:
        fix = f"each connection takes two: raise RLIMIT_NOFILE (ulimit -Hn) to {_FILES} or more"
        yield Check(_LIMITS, "descriptors", State.WARN, str(hard), fix)
    for name in ("admin", "metrics", "readiness"):
        yield _port(name, getattr(settings, f"{name}_address"))


def _port(name: str, address: Endpoint) -> Check:
    what = f"port {address.port}"
    family = socket.AF_INET6 if address.ip.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((str(address.ip), address.port))
    except OSError as error:
        fix = f"a node proxy that runs here, or set ZTUNNEL_{name.upper()}_ADDRESS"
        return Check(_LIMITS, what, State.WARN, f"{name}: {error.strerror}", fix)
    return Check(_LIMITS, what, State.OK, f"{name}: free")


def _neighbours(settings: Settings) -> Iterator[Check]:
    """Programs of others on hooks of cgroups, and the cgroups of the kubelet's pods."""
    try:
        root = cgroup.find_root()
    except Unsupported:
        return
    try:
        place = redirection_of(settings).pins
        ours = programs_beside(Pins(place if settings.node or settings.pins else place / "any"))
        yield from hook_checks(list_programs(root, ours), whose)
    except OSError as error:
        yield Check(_OTHER, "programs on cgroup hooks", State.WARN, str(error.strerror), _AS_ROOT)
    yield kubelet_check(root)


def kubelet_check(root: Path, mounts: str = "/proc/mounts") -> Check:
    """Whether pods are where their processes can be told apart by the kernel: in cgroup v2 at `root`."""
    if survey(root).kubepods:
        return Check(_OTHER, "kubelet", State.OK, "its pods' cgroups are there")
    elsewhere = find_kubepods(mounts)
    if not elsewhere:
        return Check(_OTHER, "kubelet", State.OK, "none runs here")
    fix = "pods that start cannot be made to wait (strictStart): have kubelet and runtime use cgroup v2"
    return Check(_OTHER, "kubelet", State.WARN, f"its pods are in cgroup v1 alone: {elsewhere[0]}", fix)


def _agents(etc: Path) -> Iterator[Check]:
    """Other meshes that redirect pods."""
    for folder, marks in _OTHERS.items():
        place = etc / folder.lstrip("/")
        try:
            texts = [_read(file) for file in sorted(place.glob("*.conf*"))] if place.is_dir() else []
        except OSError as error:
            yield Check(_OTHER, folder, State.WARN, str(error.strerror), _AS_ROOT)
            continue
        for mark, meaning in marks:
            if any(f'"{mark}"' in text for text in texts):
                yield Check(_OTHER, mark, State.WARN, f"in {folder}", meaning)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
