"""Listeners inside a pod's namespace, and the connections that live there: listed, and destroyed.

Listing and destroying go through sock_diag (include/uapi/linux/inet_diag.h); `SOCK_DESTROY` needs
CONFIG_INET_DIAG_DESTROY and is probed by doing it. Its two structs are written and read by hand: pyroute2's
come with its sockets and asyncio, 3 MiB of every proxy.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from ztunnel.kernel.netlink import Netlink, attributes, body_of
from ztunnel.kernel.netns import Here, NetworkNamespace
from ztunnel.model.address import Endpoint, parse_packed

_SOCK_DIAG = 4
_TCP_GETSOCK, _SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY = 18, 20, 21
_INET_DIAG_INFO, _INET_DIAG_CGROUP_ID = 2, 21
_ASK = struct.Struct("=BBBxI2s2s16s16sIQ")
"""struct inet_diag_req_v2: family, protocol, attributes, states, and one connection."""
_MESSAGE_BYTES = 72  # struct inet_diag_msg, before the attributes
_IP_FREEBIND, _IP_TRANSPARENT = 15, 19
_SO_COOKIE: Final = 57
_SOL_SOCKET: Final = int(socket.SOL_SOCKET)
_TCP: Final = int(socket.IPPROTO_TCP)
_TCP_SAVE_SYN: Final = 27
_TCP_SAVED_SYN: Final = 28
_SYN_BYTES: Final = 120  # the longest headers of IPv4 and TCP
_NO_COOKIE: Final = 0xFFFFFFFFFFFFFFFF
_ALL_STATES: Final = 0xFFFFFFFF
_NOWHERE: Final = "192.0.0.8"
"""The dummy address of RFC 7600: no host has it, no packet goes to it."""


class TcpState(IntEnum):
    """include/net/tcp_states.h."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11


LIVE: Final = (
    TcpState.ESTABLISHED,
    TcpState.FIN_WAIT1,
    TcpState.FIN_WAIT2,
    TcpState.CLOSE_WAIT,
    TcpState.CLOSING,
)


class Keepalive(NamedTuple):
    """After how many seconds of silence, and how often, the kernel asks a peer whether it is still there;
    after so many questions without an answer the connection is over (tcp(7))."""

    time_seconds: int
    interval_seconds: int
    retries: int

    def apply(self, sock: socket.socket) -> None:
        """To a connection, or a listener, from which accepted sockets inherit it. Raises OSError."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, self.time_seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, self.interval_seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, self.retries)


class Listening(NamedTuple):
    """How listeners are made: dual stack, or IPv4 only; with `shared` others of ours may have the same port;
    `transparent` ones take connections to addresses that are not the namespace's (TPROXY)."""

    ipv6: bool = True
    keepalive: Keepalive | None = None
    shared: bool = False
    transparent: bool = False


DUAL_STACK: Final = Listening()


def listen_in(
    namespace: NetworkNamespace, port: int, backlog: int, options: Listening = DUAL_STACK
) -> socket.socket:
    """A listener on every address of the namespace: dual stack on [::], or 0.0.0.0. Accepted sockets inherit
    its options, TCP_NODELAY and SO_OOBINLINE among them. Raises OSError, EADDRINUSE where a process of the
    pod has the port."""
    return _listen(namespace, ("::" if options.ipv6 else "0.0.0.0", port), backlog, options)


def listen_side_by_side(
    namespace: NetworkNamespace,
    ports: Iterable[int],
    backlog: int,
    count: int,
    options: Listening = DUAL_STACK,
) -> tuple[socket.socket, ...]:
    """So many of `listen_nowhere` on one port, each with a backlog of its own. The kernel does not spread
    connections over them: sk_lookup says whose each is, and nobody else can join them."""
    shared = options._replace(shared=True)
    with ExitStack() as undo:
        first = undo.enter_context(listen_nowhere(namespace, ports, backlog, shared))
        port = first.getsockname()[1]
        others = [
            undo.enter_context(listen_nowhere(namespace, [port], backlog, shared)) for _ in range(count - 1)
        ]
        for each in (first, *others):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
        undo.pop_all()
    return (first, *others)


def listen_nowhere(
    namespace: NetworkNamespace, ports: Iterable[int], backlog: int, options: Listening = DUAL_STACK
) -> socket.socket:
    """As `listen_in`, on an address that nobody has, at the first of these ports that is free: only sk_lookup
    finds it, and gives it connections to whatever address and port, of both families if it is dual stack."""
    address = f"::ffff:{_NOWHERE}" if options.ipv6 else _NOWHERE
    taken = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    for port in ports:
        try:
            return _listen(namespace, (address, port), backlog, options)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            taken = error
    raise taken


def _listen(
    namespace: NetworkNamespace, address: tuple[str, int], backlog: int, options: Listening
) -> socket.socket:
    ipv6 = options.ipv6
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    try:  # with its protocol: none are made in advance for the next
        listener = namespace.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        if not ipv6 or error.errno != errno.EAFNOSUPPORT:
            raise
        address = "0.0.0.0" if address[0] == "::" else _NOWHERE, address[1]
        return _listen(namespace, address, backlog, options._replace(ipv6=False))
    try:
        if options.keepalive is not None:
            options.keepalive.apply(listener)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        if ipv6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        if options.transparent:
            listener.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)  # of both families
        if options.shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


def keep_syns(listener: socket.socket) -> None:
    """Keep the SYN of each connection until `kept_syn` has told it. Raises OSError."""
    listener.setsockopt(_TCP, _TCP_SAVE_SYN, 1)


def kept_syn(accepted: socket.socket) -> bytes:
    """From its IP header on; empty where it was not kept, was told before, or is longer than any plain one.
    It says what `getsockname` would in a quarter of the time."""
    try:
        return accepted.getsockopt(_TCP, _TCP_SAVED_SYN, _SYN_BYTES)
    except OSError:
        return b""


def cookie_of(sock: socket.socket) -> int:
    """The kernel's number of a socket, as hooks and `connections()` report it; unique while the machine
    runs."""
    return int.from_bytes(packed_cookie_of(sock), sys.byteorder)


def packed_cookie_of(sock: socket.socket) -> bytes:
    """The same as the kernel has it in its memory. Raises OSError."""
    return sock.getsockopt(_SOL_SOCKET, _SO_COOKIE, 8)


@dataclass(frozen=True, slots=True)
class LiveSocket:
    """One TCP socket of a namespace. `acked_bytes` counts what the peer acknowledged, the opener's SYN and an
    acknowledged FIN included; `srtt_us` is the smoothed round trip."""

    local: Endpoint
    remote: Endpoint
    state: TcpState
    cookie: int
    inode: int
    uid: int
    acked_bytes: int
    received_bytes: int
    srtt_us: int
    retransmits: int


def connections(namespace: NetworkNamespace, states: Iterable[TcpState] = LIVE) -> list[LiveSocket]:
    """The namespace's TCP sockets in these states, both families. Raises OSError."""
    return [each for some in list_some(namespace, states) for each in some]


def list_some(namespace: NetworkNamespace, states: Iterable[TcpState] = LIVE) -> Iterator[list[LiveSocket]]:
    """The same, some ninety at a time, each of which takes some 10 us. Raises OSError."""
    wanted = sum(1 << state for state in set(states))
    # The older request of the two, which pyroute2 does not know: it asks for both families at once, and each
    # request walks the machine's whole table of connections, whatever the namespace.
    ask = struct.pack("=BBBB48xII", 0, 0, 0, 1 << (_INET_DIAG_INFO - 1), wanted, 0)
    with Netlink(namespace, _SOCK_DIAG) as netlink:
        for some in netlink.parts(_TCP_GETSOCK, ask):
            yield [_live_socket(body_of(each)) for each in some]


class _Info(NamedTuple):
    srtt_us: int = 0
    retransmits: int = 0
    acked: int = 0
    received: int = 0


def _live_socket(payload: bytes) -> LiveSocket:
    """Read by hand: with pyroute2's message 10,000 flows would take 540 ms, so 90 ms."""
    family, state = payload[0], payload[1]
    sport, dport = struct.unpack_from("!HH", payload, 4)
    width = 4 if family == socket.AF_INET else 16
    cookie, uid, inode = struct.unpack_from("=Q12xII", payload, 44)
    info = _Info()
    raw = dict(attributes(payload, _MESSAGE_BYTES)).get(_INET_DIAG_INFO, b"")
    if len(raw) >= 136:  # struct tcp_info, up to tcpi_bytes_received
        info = _Info(*struct.unpack_from("=68xI28xI16xQQ", raw))
    return LiveSocket(
        local=Endpoint(parse_packed(payload[8 : 8 + width]), sport),
        remote=Endpoint(parse_packed(payload[24 : 24 + width]), dport),
        state=TcpState(state),
        cookie=cookie,
        inode=inode,
        uid=uid,
        acked_bytes=info.acked,
        received_bytes=info.received,
        srtt_us=info.srtt_us,
        retransmits=info.retransmits,
    )


def find(namespace: NetworkNamespace, local: Endpoint, remote: Endpoint) -> LiveSocket | None:
    """The connection with these ends, `local` being the one in this namespace. Raises OSError."""
    with Netlink(namespace, _SOCK_DIAG) as netlink:
        return _find(netlink, local, remote)


def own_cgroup_id() -> int:
    """The id of the cgroup that this process makes sockets in, as hooks know it. /proc/self/cgroup cannot
    tell it in a container with a cgroup namespace of its own; sock_diag can (since Linux 5.7), and takes no
    capability. Raises OSError."""
    here = Here()
    with here.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        probe.listen(1)
        local = Endpoint(IPv4Address("127.0.0.1"), probe.getsockname()[1])
        with Netlink(here, _SOCK_DIAG) as netlink:
            ask = _exactly(local, Endpoint(IPv4Address(0), 0), cookie_of(probe))
            [answer] = netlink.ask(_SOCK_DIAG_BY_FAMILY, ask)
    found = dict(attributes(body_of(answer), _MESSAGE_BYTES))
    return int.from_bytes(found[_INET_DIAG_CGROUP_ID], sys.byteorder)


def _find(netlink: Netlink, local: Endpoint, remote: Endpoint) -> LiveSocket | None:
    try:
        answers = netlink.ask(_SOCK_DIAG_BY_FAMILY, _exactly(local, remote, _NO_COOKIE))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    found = [_live_socket(body_of(each)) for each in answers]
    # Where there is no such connection the kernel answers with whoever listens for it.
    return next((each for each in found if (each.local, each.remote) == (local, remote)), None)


def destroy(namespace: NetworkNamespace, local: Endpoint, remote: Endpoint) -> bool:
    """Abort the connection from its own end `local`: ECONNABORTED there, ECONNRESET at the peer.

    It is looked up first and then destroyed by its cookie: by addresses alone the kernel would destroy the
    listener where the connection has just gone, and through sk_lookup even the proxy's own.

    Returns:
        Whether there was such a connection.

    Raises:
        OSError: EOPNOTSUPP where the kernel has no SOCK_DESTROY, EPERM without CAP_NET_ADMIN.
    """
    with Netlink(namespace, _SOCK_DIAG) as netlink:
        found = _find(netlink, local, remote)
        if found is None:
            return False
        try:
            netlink.act(_SOCK_DESTROY, _exactly(local, remote, found.cookie))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
    return True


def _exactly(local: Endpoint, remote: Endpoint, cookie: int) -> bytes:
    """The question about one connection. Of its addresses IPv4 uses the first word."""
    family = socket.AF_INET if local.ip.version == 4 else socket.AF_INET6
    return _ASK.pack(
        family,
        socket.IPPROTO_TCP,
        1 << (_INET_DIAG_INFO - 1),
        _ALL_STATES,
        local.port.to_bytes(2, "big"),
        remote.port.to_bytes(2, "big"),
        local.ip.packed,
        remote.ip.packed,
        0,
        cookie,
    )
