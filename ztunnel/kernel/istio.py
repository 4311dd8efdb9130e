"""What Istio's data plane leaves in a pod's network namespace: its ztunnel's listeners, and the rules of its
CNI agent (istio/istio cni/pkg/iptables, istio/ztunnel src/inpod)."""

from __future__ import annotations

import struct
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

from ztunnel.kernel.netlink import Netlink, attributes, body_of
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.way_back import has_istio_rule

PORTS: Final = (15001, 15006, 15008)
"""Outbound, inbound plaintext, HBONE: Istio's ztunnel listens on all three in each pod. We do so on the last
alone."""

_CHAINS: Final = ("ISTIO_", "istio-")
"""How its chains are called in iptables, and in nftables without it (tools/istio-nftables)."""

_SOCK_DIAG, _TCP_GETSOCK, _LISTEN, _CGROUP_ID = 4, 18, 10, 21
_NETFILTER, _GET_CHAIN, _CHAIN_NAME = 12, 10 << 8 | 4, 3
_ANY_FAMILY = struct.pack("=BBH", 0, 0, 0)


def listeners(netns: NetworkNamespace, ports: Collection[int] = PORTS) -> dict[int, set[int]]:
    """By port the cgroups (their ids in v2) of the sockets that listen there; 0 where the kernel does not
    tell. Raises OSError."""
    ask = struct.pack("=BBBB48xII", 0, 0, 0, 0, 1 << _LISTEN, 0)
    found: dict[int, set[int]] = {}
    with Netlink(netns, _SOCK_DIAG) as netlink:
        for payload in map(body_of, netlink.dump(_TCP_GETSOCK, ask)):
            (port,) = struct.unpack_from("!H", payload, 4)
            if port in ports:
                told = dict(attributes(payload, 72)).get(_CGROUP_ID, b"")
                cgroup = struct.unpack("=Q", told)[0] if len(told) == 8 else 0
                found.setdefault(port, set()).add(cgroup)
    return found


def has_rules(netns: NetworkNamespace) -> bool:
    """Whether the CNI agent's rules are there: chains that are called as its are, in nftables; or its routing
    rule beside tables of iptables' older kind, whose chains cannot be listed as cheaply. Some 60 us."""
    return any(name.startswith(_CHAINS) for name in chains(netns)) or (
        _has_legacy_tables(netns) and has_istio_rule(netns)
    )


def chains(netns: NetworkNamespace) -> list[str]:
    """The names of nftables' chains; those of iptables are among them, where it uses nftables."""
    try:
        with Netlink(netns, _NETFILTER) as netlink:
            found = [dict(attributes(body_of(each), 4)) for each in netlink.dump(_GET_CHAIN, _ANY_FAMILY)]
    except OSError:  # the kernel has no nftables
        return []
    return [each.get(_CHAIN_NAME, b"").rstrip(b"\0").decode(errors="replace") for each in found]


def _has_legacy_tables(netns: NetworkNamespace) -> bool:
    with netns.entered():
        for family in ("ip", "ip6"):
            with suppress(OSError):
                if Path(f"/proc/thread-self/net/{family}_tables_names").read_text().strip():
                    return True
    return False
