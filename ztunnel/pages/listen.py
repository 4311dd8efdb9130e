"""Opens the sockets of servers of our own, or says why one cannot be had and what sets it."""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address, IPv6Address

import trio

from ztunnel.errors import ConfigError, Fault
from ztunnel.model.address import Endpoint

_BACKLOG = 128
_EVERYWHERE = IPv6Address("::")


async def listen(name: str, address: Endpoint, variable: str, ipv6: bool = True) -> trio.SocketListener:
    """A listener; `[::]` takes both families, and IPv4 alone where there shall be no IPv6.

    Args:
        name: what it is for, and `variable` what sets its address, for the message.

    Raises:
        ConfigError: the address cannot be had; says which one, why, and which variable sets it.
    """
    try:
        return trio.SocketListener(await _open(address, ipv6))
    except OSError as error:
        fix = "stop who listens there, or set" if error.errno == errno.EADDRINUSE else "set"
        message = f"{error.strerror or error}: {fix} {variable}"
        raise ConfigError(Fault(f"{name} address {address}", 0, "", message)) from error


async def _open(address: Endpoint, ipv6: bool) -> trio.socket.SocketType:
    """A listening socket; `[::]` takes both families, and IPv4 alone where there shall be no IPv6."""
    ip = IPv4Address(0) if address.ip == _EVERYWHERE and not ipv6 else address.ip
    family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        await sock.bind((str(ip), address.port))
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
