"""What a pod only forwards, refused by nftables in its namespace: for kernels without netfilter programs.

nftables cannot ask the proxy, so no new connection is forwarded, inwards or outwards; one that is open goes
on. A privileged process of the pod can remove the table, which a program's link withstands: so it is looked
for again and again.
"""

from __future__ import annotations

import errno
import struct
import subprocess
from collections.abc import Collection

from ztunnel.kernel.netlink import Netlink
from ztunnel.kernel.netns import NetworkNamespace

TABLE = "ztunnel_forward"
_REMOVE = f"table inet {TABLE} {{}}; delete table inet {TABLE}"  # also where there is none
_SECONDS = 5.0

# linux/netfilter/nf_tables.h. By hand: pyroute2's nftsocket takes longer to import than all else of a start.
_NETFILTER, _GET_TABLE, _INET, _NAME = 12, 10 << 8 | 1, 1, 1
_PADDED = TABLE.encode().ljust(len(TABLE) // 4 * 4 + 4, b"\0")
_QUESTION = struct.pack("=BBHHH", _INET, 0, 0, 4 + len(TABLE) + 1, _NAME) + _PADDED


def rules(uplinks: Collection[int]) -> str:
    """For `nft -f`: a new TCP connection by way of these interfaces is reset; without any, every one that is
    forwarded."""
    syn = "tcp flags & (syn | ack) == syn counter reject with tcp reset"
    numbers = ", ".join(map(str, uplinks))
    ways = [f"iif {{ {numbers} }} {syn}", f"oif {{ {numbers} }} {syn}"] if numbers else [syn]
    chain = "; ".join(("type filter hook forward priority 300", "policy accept", *ways))
    return f"{_REMOVE}; table inet {TABLE} {{ chain forward {{ {chain}; }}; }}"


def refuse_forwarded(netns: NetworkNamespace, uplinks: Collection[int]) -> None:
    """From now on. Blocks for some 10 ms. Raises OSError."""
    _nft(netns, rules(uplinks))


def allow_forwarded(netns: NetworkNamespace) -> None:
    """Undo `refuse_forwarded`; nothing happens where it was not done. Blocks. Raises OSError."""
    _nft(netns, _REMOVE)


def is_refusing(netns: NetworkNamespace) -> bool:
    """Whether the table still stands, with whatever is in it; 50 us. Raises OSError."""
    with Netlink(netns, _NETFILTER) as netlink:
        try:
            netlink.ask(_GET_TABLE, _QUESTION)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
    return True


def _nft(netns: NetworkNamespace, text: str) -> None:
    try:
        with netns.entered():  # a child begins where its thread is
            done = subprocess.run(
                ["nft", "-f", "-"], input=text, text=True, capture_output=True, timeout=_SECONDS
            )
    except FileNotFoundError as error:
        raise OSError(
            errno.ENOENT, "what pods forward cannot be refused: install nftables, or Linux 6.4 or later"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise OSError(errno.ETIMEDOUT, "nft does not end") from error
    if done.returncode:
        raise OSError(errno.EIO, f"nft: {done.stderr.strip()[-200:]}")
