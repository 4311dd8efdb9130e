"""Where a call of this process really goes, whatever programs on its way have told it."""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from ztunnel.model.address import Endpoint, IPAddress

_TABLES = {4: Path("/proc/thread-self/net/tcp"), 6: Path("/proc/thread-self/net/tcp6")}
_REMOTE, _INODE = 2, 9
"""Fields of a line of these (Documentation/networking/proc_net_tcp.rst)."""


def call_seen(asked: Endpoint) -> Endpoint | None:
    """Begin a TCP connection to `asked`, and give it up at once: the far end that the kernel has it with.
    That is another one where a program on the cgroup's connect hooks has changed it, such as a load
    balancer's, and getpeername() need not tell. None where it cannot be made, or is over before it was seen.
    """
    family = socket.AF_INET6 if asked.ip.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        code = sock.connect_ex((str(asked.ip), asked.port))
        if code not in (0, errno.EINPROGRESS):
            return None
        inode = os.fstat(sock.fileno()).st_ino
        try:
            lines = _TABLES[asked.ip.version].read_text().splitlines()[1:]
        except OSError:
            return None
    rows = (line.split() for line in lines)
    remote = next((row[_REMOTE] for row in rows if len(row) > _INODE and row[_INODE] == str(inode)), "")
    return parse_remote(remote) if remote else None


def parse_remote(text: str) -> Endpoint:
    """`0100007F:01BB`: words of the address in the byte order of the machine, here the lower byte first."""
    ip, _, port = text.partition(":")
    packed = b"".join(bytes.fromhex(ip[at : at + 8])[::-1] for at in range(0, len(ip), 8))
    found: IPAddress = IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)
    return Endpoint(found, int(port, 16))
