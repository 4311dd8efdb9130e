"""Pods as the kernel redirects them: which namespaces are enrolled, and whose each address is."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from ztunnel.kernel import bpf
from ztunnel.kernel.batch import items
from ztunnel.kernel.bpf import NOEXIST, Map
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.model.address import IPAddress, pack16
from ztunnel.redirect.enforce import Verdicts
from ztunnel.redirect.find import find_neighbours
from ztunnel.redirect.forward import Forwards
from ztunnel.redirect.layout import (
    NUMBER,
    ListenerKind,
    PodFlag,
    pull_ip,
    pull_pod,
    push_listener,
    push_pod,
)
from ztunnel.redirect.plan import SK_LOOKUP, Pins
from ztunnel.redirect.repair import PodLinks


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """A pod as redirection sees it. Calls go to the proxy at `ipv4` or `ipv6`, by family; `addresses` are all
    of its addresses, those two included; `link_local` are those besides, with their interfaces. `uplinks` are
    the interfaces by which others reach it; `forwards`: what it only forwards is left alone. `netns` stays
    the caller's and must be open during `enroll`."""

    cookie: int
    netns: NetworkNamespace
    ipv4: IPv4Address | None
    ipv6: IPv6Address | None
    addresses: tuple[IPAddress, ...]
    uplinks: tuple[int, ...] = ()
    forwards: bool = False
    link_local: tuple[tuple[IPv6Address, int], ...] = ()

    def scope_of(self, ip: IPAddress) -> int:
        """The interface that an address of the pod's means, which a link-local one does not say; 0 for
        others."""
        return next((index for each, index in self.link_local if each == ip), 0)

    def chosen(self, source: IPAddress, towards: IPAddress) -> IPAddress | None:
        """The address that a call comes from, if its application chose it: another one than the kernel gives,
        and one that can be kept on the way to `towards`."""
        return source if source.version == towards.version and source not in (self.ipv4, self.ipv6) else None


@dataclass(frozen=True, slots=True)
class EnrolledPod:
    """A pod that the kernel redirects now."""

    ipv4: IPAddress | None
    ipv6: IPAddress | None
    addresses: frozenset[IPAddress]
    flags: PodFlag = PodFlag.NONE


class PodEntries:
    """What the kernel is told of pods. One that is enrolled again keeps its generation."""

    def __init__(
        self, pins: Pins, maps: Mapping[str, Map], program: int, verdicts: Verdicts, forwards: Forwards
    ) -> None:
        """`program` is the descriptor of the sk_lookup program; it stays the caller's, as all others do."""
        self._enrolled, self._owners = maps["enrolled"], maps["owners"]
        self._links = PodLinks(pins, program)
        self._program = program
        self._verdicts, self._forwards = verdicts, forwards

    def close(self) -> None:
        """Let go; the kernel goes on redirecting."""
        self._links.close()

    def enroll(self, pod: PodNetwork) -> None:
        """Redirect the pod from now on, or with these addresses from now on. Fails closed: where the proxy
        does not listen yet, calls are refused.

        Raises:
            OSError: the kernel refuses; the pod is then not enrolled if it was not before.
        """
        key = NUMBER.pack(pod.cookie)
        fresh = self._enrolled.get(key) is None
        try:
            self._verdicts.begin(pod.cookie)
            own = [pack16(ip) for ip in pod.addresses] + [
                pack16(ip) for ip, _ in pod.link_local if self.may_own(pod.cookie, ip)
            ]
            for ip in own:
                self._owners.put(ip, key)
            self._disown_addresses(pod.cookie, frozenset(own))
            self._forwards.know_uplinks(pod.cookie, pod.uplinks)
            # A call that is captured has to find us.
            self._links.attach(pod.cookie, pod.netns.fileno())
            self._enrolled.put(key, _entry(pod))
            self._forwards.attach(pod.netns, pod.uplinks, pod.forwards)
        except OSError:
            if fresh:
                self.withdraw_cookie(pod.cookie)
            raise

    def refuse(self, pod: PodNetwork) -> None:
        """The pod is wanted in the mesh and is not in it: its calls and those to it are refused from now on,
        until it is enrolled or withdrawn.

        Raises:
            OSError: the kernel refuses; what could be done is done.
        """
        key = NUMBER.pack(pod.cookie)
        self._enrolled.put(key, push_pod(pod.ipv4, pod.ipv6, PodFlag.REFUSED))
        self._verdicts.begin(pod.cookie)
        for ip in pod.addresses:
            with suppress(FileExistsError):  # where the namespace is not the pod's, it is another's
                self._owners.put(pack16(ip), key, NOEXIST)
        self._links.attach(pod.cookie, pod.netns.fileno())
        self._forwards.attach(pod.netns, pod.uplinks)

    def may_own(self, cookie: int, ip: IPAddress) -> bool:
        """Whether the pod may have this link-local address: two pods on different links may well have the
        same one, and the kernel's program does not see the link. Then it is the first one's, and calls to the
        other's are refused."""
        owner = self._owners.get(pack16(ip))
        return owner is None or owner == NUMBER.pack(cookie)

    def leave(self, pod: PodNetwork) -> None:
        """Capture no new call of the pod and none to it; those that were captured before still come to its
        listener, until it is withdrawn. Raises OSError, and may be called again."""
        self._enrolled.put(NUMBER.pack(pod.cookie), push_pod(pod.ipv4, pod.ipv6, PodFlag.LEAVING))
        self._forwards.release(pod.netns)
        self._forwards.detach(pod.cookie)
        self._verdicts.end(pod.cookie)

    def withdraw(self, pod: PodNetwork) -> None:
        """Stop redirecting the pod; connections that live go on. Nothing happens if it is not enrolled."""
        self.withdraw_cookie(pod.cookie)
        self._forwards.release(pod.netns)

    def withdraw_cookie(self, cookie: int) -> None:
        """`withdraw` for a pod of which only the cookie is known, e.g. one that vanished while we were
        away."""
        self._enrolled.drop(NUMBER.pack(cookie))
        self._links.detach(cookie)
        self._forwards.detach(cookie)
        self._disown_addresses(cookie, frozenset())
        self._verdicts.end(cookie)

    def look(self, pod: PodNetwork) -> list[str]:
        """See whether the kernel still knows an enrolled pod as `enroll` left it, and tell it again where
        not; 10 us where it does.

        Returns:
            What was missing: `pod entry`, `pod link`.

        Raises:
            OSError: the kernel refuses; the pod stays as it is.
        """
        key = NUMBER.pack(pod.cookie)
        missing: list[str] = []
        known = self._enrolled.get(key) == _entry(pod) and all(
            self._owners.get(pack16(ip)) == key for ip in pod.addresses
        )
        if not known or not self._verdicts.generation(pod.cookie):
            missing.append("pod entry")
            self.enroll(pod)
        if self._links.attach(pod.cookie, pod.netns.fileno()):
            missing.append("pod link")
        if self._forwards.attach(pod.netns, pod.uplinks, pod.forwards):
            missing.append("forward link")
        return missing

    def neighbours(self, pod: PodNetwork) -> list[str]:
        """Programs of others in the pod's namespace that make a difference to us. Raises OSError."""
        return [
            each.text
            for each in find_neighbours(pod.netns.fileno(), [SK_LOOKUP], {bpf.object_id(self._program)})
        ]

    def enrolled(self) -> dict[int, EnrolledPod]:
        """The pods that the kernel redirects now, by cookie."""
        addresses: dict[int, set[IPAddress]] = {}
        for ip, owner in items(self._owners):
            addresses.setdefault(NUMBER.unpack(owner)[0], set()).add(pull_ip(ip))
        found: dict[int, EnrolledPod] = {}
        for key, value in items(self._enrolled):
            cookie = NUMBER.unpack(key)[0]
            ipv4, ipv6, flags = pull_pod(value)
            found[cookie] = EnrolledPod(ipv4, ipv6, frozenset(addresses.get(cookie, ())), flags)
        return found

    def _disown_addresses(self, cookie: int, keep: frozenset[bytes]) -> None:
        key = NUMBER.pack(cookie)
        for ip, owner in items(self._owners):
            if owner == key and ip not in keep:
                self._owners.drop(ip)


def _entry(pod: PodNetwork) -> bytes:
    """What the hooks know of an enrolled pod."""
    return push_pod(pod.ipv4, pod.ipv6, PodFlag.FORWARDS if pod.forwards else PodFlag.NONE)


def fill_listeners(
    maps: Mapping[str, Map], listeners: Mapping[int, Mapping[tuple[ListenerKind, int], int]]
) -> None:
    """Enter listening sockets, by kind and queue, for all addresses of their pods, by the cookies of these:
    into maps that no program uses yet. Raises OSError."""
    for ip in maps["owners"]:
        owner = maps["owners"].get(ip)
        for (kind, queue), fd in listeners.get(NUMBER.unpack(owner)[0] if owner else 0, {}).items():
            maps["listeners"].put(push_listener(pull_ip(ip), kind, queue), NUMBER.pack(fd))
