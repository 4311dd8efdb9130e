"""Where a netfilter program finds a packet, its namespace and its connection in the running kernel."""

from __future__ import annotations

import struct
from pathlib import Path

from ztunnel.kernel.btf import RUNNING_KERNEL, offsets_of

_PACKET = {
    "sk_buff": {"len": "SKB_LEN", "data_len": "SKB_DATA_LEN", "data": "SKB_DATA", "_nfct": "SKB_NFCT"},
    "nf_hook_state": {"pf": "STATE_FAMILY", "in": "STATE_IN", "out": "STATE_OUT", "net": "STATE_NET"},
    "net": {"net_cookie": "NET_COOKIE"},
    "net_device": {"ifindex": "DEVICE_INDEX"},
}
_TRACKED = (("nf_conn", "tuplehash"), ("nf_conntrack_tuple_hash", "tuple"))


def packet_offsets(place: Path = RUNNING_KERNEL) -> dict[str, int]:
    """By the names of bpf/lib/config.h; nothing where the kernel does not tell all of it."""
    try:
        blob = place.read_bytes()
        found: dict[str, int] = {}
        for name, members in _PACKET.items():
            offsets = offsets_of(blob, name, tuple(members))
            if offsets is None:
                return {}
            found |= {f"{short}_AT": at for short, at in zip(members.values(), offsets, strict=True)}
        tracked = [offsets_of(blob, name, (member,)) for name, member in _TRACKED]
    except (OSError, ValueError, struct.error):
        return {}
    if None in tracked:
        return {}
    return found | {"NFCT_TUPLE_AT": sum(each[0] for each in tracked if each)}
