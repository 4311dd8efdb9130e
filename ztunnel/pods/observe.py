"""Observes which connections of a pod no proxy carries, because they are older than its enrolment."""

from __future__ import annotations

import os
from contextlib import suppress

from ztunnel.kernel.sockets import connections
from ztunnel.pods.listen import HBONE_PORT
from ztunnel.redirect.attach import Redirection
from ztunnel.redirect.enroll import PodNetwork


def outside_connections(redirection: Redirection, network: PodNetwork) -> frozenset[int]:
    """Cookies of the pod's connections that no proxy carries, neither ours nor an application's with us, and
    that are no direct flows, which live on while a pod is removed."""
    here = [each for each in connections(network.netns) if not each.local.ip.is_loopback]
    if not here:
        return frozenset()
    ours = _own_inodes()
    carried = {(each.remote, each.local) for each in here if each.inode in ours}
    return frozenset(
        each.cookie
        for each in here
        if each.inode not in ours
        and (each.local, each.remote) not in carried
        and each.remote.ip not in network.addresses
        and HBONE_PORT not in (each.local.port, each.remote.port)
        and not redirection.is_direct(each.cookie)
    )


def _own_inodes() -> frozenset[int]:
    """The inodes of all sockets of this process."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the listing's own is gone
            kind, _, inode = os.readlink(f"/proc/self/fd/{number}").partition(":")
            if kind == "socket":
                found.add(int(inode.strip("[]")))
    return frozenset(found)
