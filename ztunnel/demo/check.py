"""Whether this machine can hold a laboratory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ztunnel.errors import Unsupported
from ztunnel.kernel import cgroup

_PROGRAMS = {
    "nft": "nftables",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
}


def check() -> Path:
    """Where cgroup v2 is mounted, if everything else is there too.

    Raises:
        Unsupported: no root, no cgroup v2, or a program is missing.
    """
    if os.geteuid() != 0:
        raise Unsupported("a laboratory needs root: run the command with sudo")
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        packages = " ".join(sorted({_PROGRAMS[program] for program in missing}))
        raise Unsupported(f"{' and '.join(missing)} not found: apt-get install -y {packages}")
    return cgroup.find_root()
