"""A small machine inside this one: two pods and a node on a bridge, an outsider behind a routed link, own
cgroups.

     a 10.77.0.2 fd77::2 --+
                           +-- br0 10.77.0.1 fd77::1  node  10.78.0.1 -- 10.78.0.2 x
     b 10.77.0.3 fd77::3 --+

The test process itself is the application, the proxy and the node's processes, by the cgroup that it joins.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

from ztunnel.kernel import cgroup
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.sockets import listen_nowhere
from ztunnel.model.address import Endpoint, OriginalDestination, parse_ip
from ztunnel.redirect import load
from ztunnel.redirect.attach import Redirection
from ztunnel.redirect.capture import LISTENER_PORTS
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.redirect.layout import ListenerKind, Recalled
from ztunnel.redirect.plan import RedirectSettings

CACHE = Path("/var/cache/ztunnel/bpf")
PINS = Path("/sys/fs/bpf/ztunnel")
PATIENCE_SECONDS = 3.0
STARTING_SECONDS = 10.0  # a process of ours, on a machine that is busy
T = TypeVar("T")
_numbers = itertools.count()

BRIDGED = """
link add v{n} type veth peer name eth0 netns {pod}
link set v{n} master br0 up
"""
IN_POD = """
link set lo up
link set eth0 up
addr add 10.77.0.{i}/24 dev eth0
addr add fd77::{i}/64 dev eth0 nodad
route add default via 10.77.0.1
route add default via fd77::1
"""
OUTSIDE = """
link set lo up
link set eth0 up
addr add 10.78.0.2/24 dev eth0
route add default via 10.78.0.1
"""
IN_NODE = """
link set lo up
link add br0 type bridge
link set br0 up
addr add 10.77.0.1/24 dev br0
addr add fd77::1/64 dev br0 nodad
"""


def unique() -> str:
    """A name that no other test run has: `zt<pid>x<number>`."""
    return f"zt{os.getpid()}x{next(_numbers)}"


def ip(namespace: str, batch: str) -> None:
    subprocess.run(
        ["ip", "-n", namespace, "-batch", "-"], input=batch, text=True, check=True, capture_output=True
    )


def shell(namespace: str, command: str) -> str:
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, "sh", "-c", command], text=True, check=True, capture_output=True
    )
    return done.stdout


def endpoint(host: str, port: int) -> Endpoint:
    return Endpoint(parse_ip(host), port)


def original(host: str, port: int) -> OriginalDestination:
    return OriginalDestination(parse_ip(host), port)


def local_of(sock: socket.socket) -> Endpoint:
    return endpoint(*sock.getsockname()[:2])


def wait_until(found: Callable[[], T]) -> T:
    """The first true answer, asked again and again for a bounded time."""
    deadline = time.monotonic() + STARTING_SECONDS
    while not (answer := found()):
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)
    return answer


class Lab:
    """Namespaces and cgroups, shared by the tests of a module. Use it as `with Lab() as lab`."""

    def __init__(self) -> None:
        self.name = unique()
        self.root = cgroup.find_root() / self.name
        self._stack = ExitStack()
        self.names = {each: f"{self.name}-{each}" for each in "nabx"}

    def __enter__(self) -> Lab:
        with ExitStack() as building:
            self._build(building)
            self._stack = building.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _build(self, stack: ExitStack) -> None:
        for name in self.names.values():
            subprocess.run(["ip", "netns", "add", name], check=True)
            stack.callback(subprocess.run, ["ip", "netns", "del", name], check=True)
            # No wait for duplicates: routes and states of addresses would change while tests compare them.
            shell(name, "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad")
        node = self.names["n"]
        ip(node, IN_NODE)
        for number, pod in ((2, "a"), (3, "b")):
            ip(node, BRIDGED.format(n=pod, pod=self.names[pod]))
            ip(self.names[pod], IN_POD.format(i=number))
        ip(node, f"link add vx type veth peer name eth0 netns {self.names['x']}\nlink set vx up")
        ip(node, "addr add 10.78.0.1/24 dev vx")
        ip(self.names["x"], OUTSIDE)
        shell(node, "echo 1 >/proc/sys/net/ipv4/ip_forward")
        self.node, self.a, self.b, self.x = (
            stack.enter_context(NetworkNamespace.open(f"/run/netns/{name}")) for name in self.names.values()
        )
        for each in "ab":
            wait_until(partial(self._has_settled, self.names[each]))
        before = cgroup.own_path(cgroup.find_root())
        self.branches = {each: self.root / each for each in ("app", "proxy", "kubelet")}
        for path in (self.root, *self.branches.values()):
            cgroup.create(path)
            stack.callback(cgroup.remove, path)
        stack.callback(cgroup.join, before)
        cgroup.join(self.branches["app"])

    def _has_settled(self, namespace: str) -> bool:
        """Whether the kernel has given the interface its link-local address, and the routes that belong to
        it."""
        addresses = "ip -6 -o addr show dev eth0 scope link -tentative"
        found = shell(namespace, f"{addresses}; ip -6 route show table all")
        return "inet6 fe80:" in found and "local fe80:" in found and "multicast ff00::/8 dev eth0" in found

    @contextmanager
    def in_cgroup(self, name: str) -> Iterator[None]:
        """This process is in `app`, `proxy` or `kubelet`; outside the block it is in `app`."""
        cgroup.join(self.branches[name])
        try:
            yield
        finally:
            cgroup.join(self.branches["app"])

    def cgroup_id(self, name: str) -> int:
        return cgroup.cgroup_id(self.branches[name])

    def pod(self, which: str) -> PodNetwork:
        """The network of pod `a` or `b`."""
        number, netns = {"a": (2, self.a), "b": (3, self.b)}[which]
        v4, v6 = parse_ip(f"10.77.0.{number}"), parse_ip(f"fd77::{number}")
        with netns.entered():
            uplink = socket.if_nametoindex("eth0")
        return PodNetwork(netns.cookie, netns, v4, v6, (v4, v6), (uplink,))

    def settings(self, **changes: object) -> RedirectSettings:
        return RedirectSettings(pins=PINS / unique(), cache=CACHE, cgroup=self.root, **changes)


class Kernel:
    """One installation of the redirection below the laboratory's cgroup, with sockets that close with it."""

    def __init__(self, lab: Lab, **changes: object) -> None:
        self.lab = lab
        self.settings = lab.settings(**changes)
        self._stack = ExitStack()
        self._accepted_at: dict[Endpoint, int] = {}

    def __enter__(self) -> Kernel:
        with ExitStack() as building:
            building.callback(load.remove, self.settings.pins)
            load.ensure_loaded(self.settings)
            self.redirection = building.enter_context(Redirection.open(self.settings.pins))
            self.redirection.cgroups.own_cgroup(self.lab.cgroup_id("proxy"))
            self._stack = building.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def keep(self, sock: socket.socket) -> socket.socket:
        """Close it at the end."""
        self._stack.callback(sock.close)
        return sock

    def socket(
        self, netns: NetworkNamespace, host: str = "0.0.0.0", kind: int = socket.SOCK_STREAM
    ) -> socket.socket:
        """A socket of the address's family with a time limit."""
        family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
        sock = self.keep(netns.socket(family, kind))
        sock.settimeout(PATIENCE_SECONDS)
        return sock

    def connect(self, netns: NetworkNamespace, host: str, port: int) -> socket.socket:
        sock = self.socket(netns, host)
        sock.connect((host, port))
        return sock

    def listen(self, netns: NetworkNamespace, port: int = 0, host: str = "::") -> socket.socket:
        """A dual-stack listener."""
        sock = self.socket(netns, host)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(1024)
        return sock

    def proxy(self, which: str, kind: ListenerKind = ListenerKind.OUTBOUND) -> socket.socket:
        """The proxy's listener in pod `a` or `b`, where only the kernel's program finds it."""
        pod = self.lab.pod(which)
        listener = self.keep(listen_nowhere(pod.netns, LISTENER_PORTS, 1024))
        listener.settimeout(PATIENCE_SECONDS)
        for ip in pod.addresses:
            self.redirection.listener(ip, kind, listener.fileno())
        return listener

    def accept(self, listener: socket.socket) -> tuple[socket.socket, Endpoint]:
        accepted, address = listener.accept()
        accepted.settimeout(PATIENCE_SECONDS)
        peer = endpoint(*address[:2])
        self._accepted_at[peer] = local_of(accepted).port
        return self.keep(accepted), peer

    def recall(self, cookie: int, peer: Endpoint) -> Recalled | None:
        """What who was accepted from there had called."""
        return self.redirection.original_destination(cookie, peer, self._accepted_at.get(peer, 0))

    def enroll(self, which: str) -> PodNetwork:
        pod = self.lab.pod(which)
        self.redirection.enroll(pod)
        return pod

    def count(self, outcome: str) -> int:
        return self.redirection.outcomes()[outcome]
