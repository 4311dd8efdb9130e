"""Where a connection was to go that rules of netfilter have sent to a listener of ours."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from ipaddress import ip_address

from ztunnel.model.address import Endpoint, canonical, parse_packed

_SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h; IP6T_SO_ORIGINAL_DST is the same number
_IPV4, _IPV6 = struct.Struct("!2xH4s8x"), struct.Struct("!2xH4x16s4x")  # struct sockaddr_in, sockaddr_in6


def original_destination(accepted: socket.socket) -> Endpoint:
    """What the peer called: REDIRECT has rewritten it, and connection tracking remembers it. Where nothing
    was rewritten, as by TPROXY, it is the local address. Raises OSError."""
    host, port = accepted.getsockname()[:2]
    here = Endpoint(canonical(ip_address(host.partition("%")[0])), port)
    level, form = (socket.SOL_IP, _IPV4) if here.ip.version == 4 else (socket.IPPROTO_IPV6, _IPV6)
    with suppress(OSError):  # ENOENT: not tracked; ENOPROTOOPT: nothing is
        called, packed = form.unpack(accepted.getsockopt(level, _SO_ORIGINAL_DST, form.size))
        return Endpoint(parse_packed(packed), called)
    return here
