"""Takes one pod into the mesh and gives it back: its namespace, its three listeners, the kernel's view of it.

The order is what keeps it honest. Taking in: everything that a captured connection needs stands before the first one
is captured. Giving back: capture ends first; the listeners stay for a moment, for those who have not heard of it yet;
rule and route stay until the last connection that shows a client's address has ended.
"""

from __future__ import annotations

import errno
import socket

from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from ztunnel.kernel.netlink import addresses, route_marked, unroute_marked
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.sockets import LiveSocket, connections, listen_in
from ztunnel.model.address import IPAddress
from ztunnel.model.workload import Workload
from ztunnel.redirect.attach import PodNetwork, Redirection

OUTBOUND_PORT = 15001
INBOUND_PORT = 15006
HBONE_PORT = 15008
BACKLOG = 4096
"""ztunnel asks for 128; a burst of connections to one pod overflows that before a busy proxy accepts."""

_ACCEPT_MARK = "net.ipv4.tcp_fwmark_accept"
_MIGRATE = "net.ipv4.tcp_migrate_req"


@dataclass(frozen=True, slots=True)
class Listeners:
    """The three listeners of one pod, non-blocking."""

    outbound: socket.socket
    inbound: socket.socket
    hbone: socket.socket


class CannotEnroll(Exception):
    """A pod cannot be taken in now; the message says why and what to do. It is tried again."""


@dataclass(slots=True)
class Enrolled:
    """A pod that is in the mesh. `outside` are cookies of its sockets that were connected before it was taken in."""

    uid: str
    network: PodNetwork
    listeners: Listeners
    outside: frozenset[int]


def enroll(redirection: Redirection, workload: Workload, path: str, ipv6: bool = True) -> Enrolled:
    """Take the pod in whose network namespace is at `path`; takes about 1 ms and waits for nothing.

    Raises:
        CannotEnroll: the namespace is not this pod's, a port is taken, or the kernel refuses.
    """
    with ExitStack() as undo:
        try:
            netns = NetworkNamespace.open(path)
            undo.callback(netns.close)
            network = _network(netns, workload)
            netns.write_sysctl(_ACCEPT_MARK, "1")
            netns.write_sysctl(_MIGRATE, "1")
            route_marked(netns)
            undo.callback(unroute_marked, netns)
            listeners = Listeners(*(_listen(undo, netns, workload, port, ipv6) for port in _PORTS))
            resumed = network.cookie in redirection.enrolled()
            outside = frozenset() if resumed else frozenset(_outsiders(netns))
            for ip in network.addresses:
                redirection.listener(ip, listeners.inbound.fileno())
            redirection.enroll(network)
        except OSError as error:
            raise CannotEnroll(f"pod {workload.namespace}/{workload.name}: {error}") from error
        undo.pop_all()
    return Enrolled(workload.uid, network, listeners, outside)


_PORTS = (OUTBOUND_PORT, INBOUND_PORT, HBONE_PORT)


def _network(netns: NetworkNamespace, workload: Workload) -> PodNetwork:
    """The pod's addresses as its namespace has them. A namespace without any of the pod's addresses is another pod's:
    to enroll it would give it this pod's identity."""
    found = addresses(netns)
    if not set(found) & set(workload.addresses):
        raise CannotEnroll(
            f"pod {workload.namespace}/{workload.name}: the namespace {netns.path} has the addresses "
            f"{', '.join(map(str, found)) or 'none'}, the pod {', '.join(map(str, workload.addresses)) or 'none'}"
        )
    return pod_network(netns, found)


def pod_network(netns: NetworkNamespace, found: tuple[IPAddress, ...]) -> PodNetwork:
    """A pod with these addresses; calls of each family are redirected to the first of that family."""
    return PodNetwork(
        cookie=netns.cookie,
        netns=netns,
        ipv4=next((ip for ip in found if isinstance(ip, IPv4Address)), None),
        ipv6=next((ip for ip in found if isinstance(ip, IPv6Address)), None),
        addresses=found,
    )


def _listen(
    undo: ExitStack, netns: NetworkNamespace, workload: Workload, port: int, ipv6: bool
) -> socket.socket:
    try:
        listener = listen_in(netns, port, BACKLOG, ipv6)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotEnroll(
                f"pod {workload.namespace}/{workload.name}: port {port} is taken by a process of the pod; "
                "the mesh needs 15001, 15006 and 15008 in each pod"
            ) from error
        raise
    undo.callback(listener.close)
    return listener


def outside_of(enrolled: Enrolled) -> list[LiveSocket]:
    """Those connections of the pod that were made before it was taken in and still live. Raises OSError."""
    if not enrolled.outside:
        return []
    return [each for each in connections(enrolled.network.netns) if each.cookie in enrolled.outside]


def _outsiders(netns: NetworkNamespace) -> list[int]:
    return [
        each.cookie
        for each in connections(netns)
        if not each.local.ip.is_loopback and each.local.port not in _PORTS and each.remote.port not in _PORTS
    ]


def withdraw(redirection: Redirection, enrolled: Enrolled) -> None:
    """End the capture: what the pod opens from now on is its own. Its open connections are not touched."""
    redirection.withdraw(enrolled.network)
    for ip in enrolled.network.addresses:
        redirection.no_listener(ip)


def release(enrolled: Enrolled) -> None:
    """The last connection has ended: undo rule and route, and let go of the namespace."""
    try:
        unroute_marked(enrolled.network.netns)
        enrolled.network.netns.write_sysctl(_ACCEPT_MARK, "0")
    except OSError:  # the namespace is going away with its pod: then so are its rules
        pass
    enrolled.network.netns.close()
