"""Has every pod of a node wait, from before its kubelet starts, until the node's proxy knows it.

After a reboot nothing is pinned, and the kubelet starts all pods of the node at once: whoever is quicker than
the proxy would talk past the mesh. The rule is the one of `strictStart: all`, which a proxy takes over; pods
are told by their cgroups, which are all below one. That one is made here where the kubelet has not done so.
"""

from __future__ import annotations

import os
from pathlib import Path

from ztunnel.errors import Unsupported
from ztunnel.kernel import cgroup, netns
from ztunnel.pods.find import survey
from ztunnel.redirect.attach import Redirection
from ztunnel.redirect.classify import PodsBranch
from ztunnel.redirect.exempt import CgroupBranch
from ztunnel.redirect.layout import StartRule
from ztunnel.run.remove import runs

BY_SYSTEMD, BY_CGROUPFS = "kubepods.slice", "kubepods"


def deny_starting(pins: Path, root: Path, kubepods: str = "") -> Path:
    """From now on calls of pods are refused, but for those with their node's network, where we are.

    Args:
        root: where cgroup v2 is mounted.
        kubepods: below it, the cgroup of all pods; empty: the one that is there, or what a kubelet with the
            machine's driver will make.

    Returns:
        That cgroup.

    Raises:
        Unsupported: nothing is loaded, the cgroup cannot be made, or a proxy serves.
    """
    if runs(pins):
        raise Unsupported("a proxy serves this node, and says by itself which pods wait")
    place = root / kubepods if kubepods else None
    found = survey(root).kubepods if place is None else None
    if place is None and found is None:
        place = root / (BY_SYSTEMD if os.path.isdir("/run/systemd/system") else BY_CGROUPFS)
    try:
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
            found = CgroupBranch(cgroup.cgroup_id(place), len(place.relative_to(root).parts))
        assert found is not None
        with Redirection.open(pins) as redirection, netns.current() as home:
            redirection.cgroups.node_clients(home.cookie, None, found)
            redirection.starts.rule(StartRule.ALL_PODS, PodsBranch(found))
    except OSError as error:
        raise Unsupported(f"pods cannot be made to wait: {error}") from error
    return place or root
