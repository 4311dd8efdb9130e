"""What this kernel and machine can do, asked by doing it; what is missing is said in one sentence with its
fix."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from ztunnel.errors import Unsupported
from ztunnel.kernel import bpf, capability, cgroup

_BPFFS = Path("/sys/fs/bpf")
_RETURN_1 = bytes.fromhex("b7000000010000009500000000000000")
_SK_LOOKUP, _ON_SK_LOOKUP = 30, 36
_libc = ctypes.CDLL(None, use_errno=True)


def require_root() -> None:
    """Raises Unsupported unless we run as root."""
    if os.geteuid() != 0:
        raise Unsupported("redirection needs root (CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN): run it as root")


def require_bpffs(pins: Path, mounts: str = "/proc/mounts") -> None:
    """A bpffs holds `pins`; the one at /sys/fs/bpf is mounted if it is not.

    Raises:
        Unsupported: `pins` lies elsewhere, or the mount fails.
    """
    if lies_on_bpffs(pins, mounts):
        return
    if not pins.is_relative_to(_BPFFS):
        raise Unsupported(f"{pins} is on no bpffs: choose a place under {_BPFFS}, or mount -t bpf there")
    if _libc.mount(b"bpf", os.fsencode(_BPFFS), b"bpf", 0, b"mode=0700") < 0:
        reason = os.strerror(ctypes.get_errno())
        raise Unsupported(f"no bpffs at {_BPFFS} ({reason}): mount -t bpf bpf {_BPFFS}")


def lies_on_bpffs(pins: Path, mounts: str = "/proc/mounts") -> bool:
    """Whether the innermost mount above `pins` is a bpffs."""
    kinds: dict[Path, str] = {}
    for line in Path(mounts).read_text().splitlines():
        _, place, kind, *_ = line.split(" ")
        kinds[Path(place)] = kind
    return next((kinds[place] == "bpf" for place in (pins, *pins.parents) if place in kinds), False)


def require_sk_lookup() -> None:
    """The kernel has sk_lookup (Linux 5.9), tried by loading a program of two instructions. Raises
    Unsupported."""
    try:
        bpf.close(bpf.prog_load(bpf.Program("probe", _SK_LOOKUP, _ON_SK_LOOKUP, _RETURN_1)))
    except OSError as error:
        raise Unsupported(
            "the system call bpf is not permitted: a seccomp profile forbids it, or the kernel is locked down"
            if error.errno == errno.EPERM
            else f"the kernel loads no sk_lookup program ({error.strerror}): Linux 5.15 or later"
        ) from error


def require_redirection(pins: Path) -> None:
    """Everything that `redirect.load` needs but the compiler. Raises Unsupported."""
    require_root()
    capability.require(capability.LOADER, "the loader of eBPF programs")
    require_bpffs(pins)
    cgroup.find_root()
    require_sk_lookup()
