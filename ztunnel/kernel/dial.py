"""Sockets that call from inside a pod's namespace, with the address and the port that they are to show.

A port within the namespace's ephemeral range is left to connect() (IP_BIND_ADDRESS_NO_PORT, with
IP_LOCAL_PORT_RANGE narrowed to that one port): it counts by 4-tuple then, so the pod's own calls may use the
same port towards others. Bound, it would be skipped by every connect() of the pod, also for the minute that
it is in TIME_WAIT: 500 calls a second would leave the pod no port.

Any other port is bound at once, whoever else has it (TCP_REPAIR lets bind() pass): only the 4-tuple has to be
free, and one in TIME_WAIT is used again as RFC 6191 allows.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address
from typing import Any, Final

from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.sockets import Keepalive
from ztunnel.kernel.way_back import MARK
from ztunnel.model.address import IPAddress, ip_text

_IP_TRANSPARENT: Final = 19
_IPV6_TRANSPARENT: Final = 75
_IP_BIND_ADDRESS_NO_PORT: Final = 24
_IP_LOCAL_PORT_RANGE: Final = 51  # since Linux 6.3
_TCP_REPAIR: Final = 19
_ON: Final = 1
_OFF: Final = 0
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
_ROOM_BYTES: Final = 3 << 20  # which the kernel doubles
_UNREAD_BYTES: Final = 1 << 19  # the same
# Compiled code looks the names of another module up, each time.
_SOL_SOCKET: Final = int(socket.SOL_SOCKET)
_TCP: Final = int(socket.IPPROTO_TCP)
_IP: Final = int(socket.IPPROTO_IP)
_IPV6: Final = int(socket.IPPROTO_IPV6)
_NODELAY: Final = int(socket.TCP_NODELAY)
_REUSEADDR: Final = int(socket.SO_REUSEADDR)
_REUSEPORT: Final = int(socket.SO_REUSEPORT)
_OOBINLINE: Final = int(socket.SO_OOBINLINE)
_SO_MARK: Final = int(socket.SO_MARK)
_AF_INET: Final = int(socket.AF_INET)
_AF_INET6: Final = int(socket.AF_INET6)
_EADDRNOTAVAIL: Final = errno.EADDRNOTAVAIL


class Source:
    """What a connection is made from.

    Attributes:
        host: the address, of the socket's family.
        ports: those that it may have, the best first; at least one.
        ephemeral: the namespace's own range, both ends included.
    """

    __slots__ = ("ephemeral", "host", "ports")

    def __init__(self, host: str, ports: tuple[int, ...], ephemeral: tuple[int, int]) -> None:
        self.host = host
        self.ports = ports
        self.ephemeral = ephemeral


def dial_socket(
    namespace: NetworkNamespace, towards: IPAddress, keepalive: Keepalive | None = None
) -> socket.socket:
    """An unconnected, non-blocking TCP socket in the namespace for an address of that family, without Nagle's
    delay; urgent bytes stay in their place. No application that sets SO_REUSEADDR is kept from its port.
    Raises OSError."""
    family = _AF_INET if isinstance(towards, IPv4Address) else _AF_INET6
    dialler = namespace.tcp_socket(family)
    dialler.setsockopt(_TCP, _NODELAY, 1)
    dialler.setsockopt(_SOL_SOCKET, _REUSEADDR, 1)
    dialler.setsockopt(_SOL_SOCKET, _OOBINLINE, 1)
    if keepalive is not None:
        keepalive.apply(dialler)
    return dialler


def share_port(dialler: socket.socket) -> None:
    """Keep no application of our user that sets SO_REUSEPORT alone from the port of an unconnected socket.
    Raises OSError."""
    dialler.setsockopt(_SOL_SOCKET, _REUSEPORT, 1)


def keep_source(dialler: socket.socket, source: IPAddress) -> None:
    """Let an unconnected socket of that family carry an address of its namespace that an application chose.
    The kernel chooses the port at connect. Raises OSError."""
    dialler.setsockopt(_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    dialler.bind((ip_text(source), 0))


def receive_all(dialler: socket.socket) -> None:
    """Give an unconnected socket the room at once that the kernel would give it by and by (tcp(7), tcp_rmem).

    Over the loopback an application may write 4 MB before anything is read, and all of it that is not in our
    hands is lost when it closes with unread input. Raises OSError.
    """
    dialler.setsockopt(_SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM_BYTES)


def hold_little(sock: socket.socket) -> None:
    """Bound what an unconnected socket, or each that a listener accepts, takes for an application of its own
    namespace that does not read.

    Over the loopback the kernel takes 4 MB at once, and whoever sends is given as much room for it as the
    kernel allows a receiver (tcp_rmem): memory that no limit of ours counts. Raises OSError.
    """
    sock.setsockopt(_SOL_SOCKET, _SO_SNDBUFFORCE, _UNREAD_BYTES)


def spoof(dialler: socket.socket, source: IPAddress, mark: int = MARK) -> None:
    """Let an unconnected socket of that family be bound to an address that is not the namespace's. By its
    mark what comes back to that address is the namespace's own. Raises OSError."""
    if isinstance(source, IPv4Address):
        dialler.setsockopt(_IP, _IP_TRANSPARENT, 1)
    else:
        dialler.setsockopt(_IPV6, _IPV6_TRANSPARENT, 1)
    dialler.setsockopt(_SOL_SOCKET, _SO_MARK, mark)


def connect_from(dialler: socket.socket, address: tuple[Any, ...], source: Source) -> int:
    """As `connect_ex`, from the first port of `source` that is to be had.

    EADDRNOTAVAIL where there is none: the socket is of no further use then.
    """
    try:
        code = _connect_unbound(dialler, address, source)
        if code == _EADDRNOTAVAIL:
            _bind(dialler, source)
            code = dialler.connect_ex(address)
    except OSError as error:
        return error.errno or errno.EINVAL
    return code


def _connect_unbound(dialler: socket.socket, address: tuple[Any, ...], source: Source) -> int:
    low, high = source.ephemeral
    bound = False
    for port in source.ports:
        # The kernel takes a narrower range than the namespace's only where that lies inside it.
        if not low <= port <= high:
            continue
        if not bound:
            bound = True
            dialler.setsockopt(_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            dialler.bind((source.host, 0))
        try:
            dialler.setsockopt(_IP, _IP_LOCAL_PORT_RANGE, only(port))
        except OSError:
            break
        code = dialler.connect_ex(address)
        if code != _EADDRNOTAVAIL:
            return code
    return _EADDRNOTAVAIL


def only(port: int) -> int:
    """A range of one port, as IP_LOCAL_PORT_RANGE has it: a u32, its upper half the last port. Given as the
    int of these bits: bytes are what setsockopt tries last, after two exceptions within."""
    return (port - 0x10000 if port & 0x8000 else port) << 16 | port


def _bind(dialler: socket.socket, source: Source) -> None:
    dialler.setsockopt(_TCP, _TCP_REPAIR, _ON)
    dialler.bind((source.host, source.ports[0]))
    dialler.setsockopt(_TCP, _TCP_REPAIR, _OFF)
    dialler.setsockopt(_SOL_SOCKET, _REUSEADDR, 1)  # the end of repair takes it away
