"""Enrolls one pod and removes it: its namespace, its three listeners, the kernel's view of it.

The order matters. Enrolling: everything that a captured connection needs stands before the first one is
captured. Removing: capture ends first; the listeners stay for a moment, for calls that were captured before
and for clients that do not know of it yet; rule and route stay until the last connection that shows a
client's address has ended.

    enroll ──> captured ── leave ──> answers ── withdraw, close ─> quiet ── release ──> nothing of it is left
                  ^                     │                            │
                  └────── resume ───────┴────────────────────────────┘
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from ztunnel.kernel.netlink import Addresses, look_up
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.sockets import DUAL_STACK, Listening, LiveSocket, connections, cookie_of
from ztunnel.model.address import IPAddress
from ztunnel.model.workload import Workload
from ztunnel.pods.kubelet import Place
from ztunnel.pods.lifecycle import NO_ADDRESSES, NO_SOCKETS
from ztunnel.pods.listen import CannotEnroll, Listeners, listen_in_pod
from ztunnel.pods.observe import outside_connections
from ztunnel.pods.prepare import Preparation, WayBlocked
from ztunnel.redirect.attach import Redirection
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.redirect.layout import ListenerKind


class Left(NamedTuple):
    """What a predecessor of this process has left, by the cookies of namespaces.

    Attributes:
        known: pods that the kernel already redirects: their connections were made inside the mesh.
        listeners: what it has handed over; empty after a crash.
    """

    known: Collection[int]
    listeners: Mapping[int, Listeners]


@dataclass(slots=True, eq=False)
class Enrolled:
    """A pod that is in the mesh, or was until lately.

    Attributes:
        home: the addresses that the world knows it by.
        network: its namespace, and its addresses as they are now.
        listeners: None once it does not answer on our ports any more.
        preparation: what we have set in its namespace.
        outside: cookies of its sockets that were connected before it was enrolled.
        serving: False once it was removed.
    """

    uid: str
    home: frozenset[IPAddress]
    network: PodNetwork
    listeners: Listeners | None
    preparation: Preparation
    outside: frozenset[int] = frozenset()
    serving: bool = True


def enroll(
    redirection: Redirection,
    workload: Workload,
    place: Place,
    left: Left | None = None,
    listening: Listening = DUAL_STACK,
) -> Enrolled:
    """Enroll the pod whose network namespace is at `place`; takes 1.5 ms and waits for nothing.

    Args:
        left: what a predecessor has left. This pod's listeners are used, and stay the caller's where this
            raises.

    Raises:
        CannotEnroll: the namespace is not this pod's, or has no addresses yet, a port is taken, or the kernel
            refuses. Nothing is left of the attempt; a pod that the kernel already redirects stays so, and its
            calls are refused.
    """
    with ExitStack() as undo:
        try:
            netns = undo.enter_context(open_namespace(place))
            found = _addresses(netns, workload)
            home = frozenset(workload.addresses or found.everywhere)
            network = pod_network(netns, home, found, workload.forwards)
            inherited = left.listeners.get(network.cookie) if left is not None else None
            listeners = inherited or listen_in_pod(undo, netns, _name(workload), listening)
            is_known = left is not None and network.cookie in left.known
            preparation = Preparation(netns, is_known)
            undo.callback(preparation.undo)
            preparation.ensure(network.uplinks)
            outside = frozenset() if is_known else outside_connections(redirection, network)
            enrolled = Enrolled(workload.uid, home, network, listeners, preparation, outside)
            _capture(redirection, enrolled, listeners)
        except (OSError, WayBlocked) as error:
            raise CannotEnroll(f"{_name(workload)}: {error}") from error
        undo.pop_all()
    return enrolled


def resume(
    redirection: Redirection, workload: Workload, enrolled: Enrolled, listening: Listening = DUAL_STACK
) -> None:
    """Enroll a pod again that was removed and not released, with the listeners that still stand.

    Raises:
        CannotEnroll: as `enroll`; then it is still removed.
    """
    netns = enrolled.network.netns
    with ExitStack() as undo:
        try:
            found = _addresses(netns, workload)
            home = frozenset(workload.addresses or found.everywhere)
            network = pod_network(netns, home, found, workload.forwards)
            listeners = enrolled.listeners or listen_in_pod(undo, netns, _name(workload), listening)
            enrolled.preparation.ensure(network.uplinks)
            outside = enrolled.outside | outside_connections(redirection, network)
            enrolled.network, enrolled.home = network, home
            _capture(redirection, enrolled, listeners)
        except (OSError, WayBlocked) as error:
            raise CannotEnroll(f"{_name(workload)}: {error}") from error
        undo.pop_all()
    enrolled.listeners, enrolled.outside, enrolled.serving = listeners, outside, True


def readdress(redirection: Redirection, enrolled: Enrolled) -> frozenset[IPAddress]:
    """Look at the pod's addresses again, and capture by what they are now. Takes some 60 us.

    Returns:
        Those that it has lost; nothing where none is left, because then the namespace is being taken down.

    Raises:
        OSError: the kernel refuses; the addresses count as before, and it may be tried again.
    """
    before, listeners = enrolled.network, enrolled.listeners
    found = look_up(before.netns)
    if not found.everywhere or listeners is None:
        return frozenset()
    network = pod_network(before.netns, enrolled.home, found, before.forwards)
    if network == before:
        return frozenset()
    enrolled.network = network
    try:
        _capture(redirection, enrolled, listeners)
    except OSError:
        enrolled.network = before
        raise
    return frozenset(before.addresses) - frozenset(network.addresses)


def relisten(redirection: Redirection, enrolled: Enrolled, listening: Listening = DUAL_STACK) -> None:
    """New listeners for a pod that has none any more. It stays captured, whatever happens.

    Raises:
        CannotEnroll: a port is taken. OSError: the kernel refuses. It may be tried again.
    """
    with ExitStack() as undo:
        listeners = listen_in_pod(undo, enrolled.network.netns, f"pod {enrolled.uid}", listening)
        _capture(redirection, enrolled, listeners)
        undo.pop_all()
    enrolled.listeners = listeners


def remind(redirection: Redirection, enrolled: Enrolled) -> list[str]:
    """See whether the kernel still captures the pod for its listeners, and tell it again where not.

    Returns:
        What was missing: `pod entry`, `pod link`, `listener entry`.

    Raises:
        OSError: the kernel refuses.
    """
    missing = redirection.look(enrolled.network)
    listeners = enrolled.listeners
    if listeners is None:
        return missing
    cookies = [cookie_of(each) for each in listeners.inbound]
    outbound = cookie_of(listeners.outbound)
    for ip in enrolled.network.addresses:
        known = [redirection.listens(ip, ListenerKind.INBOUND, queue) for queue in range(len(cookies))]
        if known != cookies or redirection.listens(ip, ListenerKind.OUTBOUND) != outbound:
            _capture(redirection, enrolled, listeners)
            return [*missing, "listener entry"]
    return missing


def leave(redirection: Redirection, enrolled: Enrolled) -> None:
    """End the capture: what the pod opens from now on is its own. Its open connections are not touched, and
    calls that are on their way to the listeners reach them. Raises OSError, and may be called again."""
    redirection.leave(enrolled.network)
    enrolled.serving = False


def withdraw(redirection: Redirection, enrolled: Enrolled) -> None:
    """The kernel knows nothing of the pod any more. Raises OSError, and may be called again.

    The slots of its listener are left: nobody asks for them in this namespace any more, they empty when it
    closes, and where another pod has got an address of this one they are that pod's.
    """
    redirection.withdraw(enrolled.network)
    enrolled.serving = False


def close(enrolled: Enrolled) -> None:
    """It answers on our ports no more; connections in their backlogs are reset."""
    listeners, enrolled.listeners = enrolled.listeners, None
    if listeners is not None:
        listeners.close()


def release(enrolled: Enrolled) -> None:
    """The last connection has ended: undo rule, route and sysctls, and let go of the namespace."""
    enrolled.preparation.undo()
    enrolled.network.netns.close()


def let_forward(redirection: Redirection, enrolled: Enrolled, forwards: bool) -> None:
    """From now on what the pod only forwards is left alone, or is not. Raises OSError."""
    network = replace(enrolled.network, forwards=forwards)
    redirection.enroll(network)
    enrolled.network = network


def pod_network(
    netns: NetworkNamespace, home: Collection[IPAddress], found: Addresses, forwards: bool = False
) -> PodNetwork:
    """A pod with these addresses; calls of each family are redirected to the first of that family. Those of
    one that the pod does not speak with itself are refused: they would get no answer.

    Args:
        home: those that the world knows it by: they come first, and others reach it by the interfaces that
            have them.

    Raises:
        OSError: its sysctls cannot be read.
    """
    everywhere = found.everywhere
    ordered = sorted(everywhere, key=lambda ip: ip not in home)
    ipv6 = next((ip for ip in ordered if isinstance(ip, IPv6Address)), None)
    return PodNetwork(
        cookie=netns.cookie,
        netns=netns,
        ipv4=next((ip for ip in ordered if isinstance(ip, IPv4Address)), None),
        ipv6=ipv6 if ipv6 is not None and netns.has_ipv6() else None,
        addresses=everywhere,
        uplinks=found.interfaces(home),
        forwards=forwards,
        link_local=found.link_local,
    )


def open_namespace(place: Place) -> NetworkNamespace:
    """The namespace there. Raises OSError: it is another one by now, or none."""
    netns = NetworkNamespace.open(place.path)
    if netns.inode != place.inode:
        netns.close()
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), place.path)
    return netns


def outside_of(enrolled: Enrolled) -> list[LiveSocket]:
    """Those connections of the pod that were made before it was enrolled and still live. Raises OSError."""
    if not enrolled.outside:
        return []
    return [each for each in connections(enrolled.network.netns) if each.cookie in enrolled.outside]


def _addresses(netns: NetworkNamespace, workload: Workload) -> Addresses:
    """The pod's addresses as its namespace has them. A namespace without any of the pod's addresses is
    another pod's: to enroll it would give it this pod's identity. A pod that starts has addresses in its
    namespace before the world knows them."""
    _refuse_virtual_machines(netns, workload)
    looked = look_up(netns)
    found = looked.everywhere
    if found and not workload.addresses:
        return looked
    if not found and workload.addresses:
        raise CannotEnroll(
            f"{_name(workload)}: {NO_ADDRESSES}: none of {_list(workload.addresses)} is in {netns.path}: it "
            "is being set up, or a sandbox with a network stack of its own has taken them (gVisor, a bridged "
            "KubeVirt machine), whose traffic passes no socket here"
        )
    if not set(found) & set(workload.addresses):
        raise CannotEnroll(
            f"{_name(workload)}: the namespace {netns.path} has the addresses "
            f"{_list(found)}, the pod {_list(workload.addresses)}"
        )
    return looked


def machine_behind(netns: NetworkNamespace) -> str:
    """The bridge by which KubeVirt connects a virtual machine to the world (`k6t-eth0`); empty where there is
    none. What the machine sends is only forwarded by its pod. Raises OSError."""
    return next((name for name in _interface_names(netns) if name.startswith("k6t-")), "")


def _interface_names(netns: NetworkNamespace) -> list[str]:
    with netns.entered():
        return [name for _, name in socket.if_nameindex()]


def _refuse_virtual_machines(netns: NetworkNamespace, workload: Workload) -> None:
    """Kata Containers hands what its machine sends past every socket of the namespace, by tc (its network
    model `tcfilter`); its taps are named so."""
    tap = next((name for name in _interface_names(netns) if name.endswith("_kata")), None)
    if tap is not None:
        raise CannotEnroll(
            f"{_name(workload)}: {NO_SOCKETS}: it is a virtual machine (Kata Containers, interface {tap}), "
            "which the mesh cannot serve"
        )


def _name(workload: Workload) -> str:
    return f"pod {workload.namespace}/{workload.name}"


def _list(ips: Collection[IPAddress]) -> str:
    return ", ".join(map(str, ips)) or "none"


def _capture(redirection: Redirection, enrolled: Enrolled, listeners: Listeners) -> None:
    network = enrolled.network
    for ip in network.addresses:
        redirection.listener(ip, ListenerKind.OUTBOUND, listeners.outbound.fileno())
    own = [ip for ip, _ in network.link_local if redirection.may_own(network.cookie, ip)]
    for ip in (*network.addresses, *own):
        for queue, listener in enumerate(listeners.inbound):
            redirection.listener(ip, ListenerKind.INBOUND, listener.fileno(), queue)
    redirection.enroll(network)
