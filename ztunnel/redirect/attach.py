"""Redirection as a node proxy holds it: pods come and go, connections are recalled, admitted, reported.

Everything is synchronous and takes microseconds, except `enroll`, `withdraw` and `open`. A `Redirection`
belongs to one thread. Closing it changes nothing in the kernel: pinned links go on enforcing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from ztunnel.errors import Unsupported
from ztunnel.kernel import bpf
from ztunnel.kernel.bpf import NOEXIST, Map
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.model.address import Endpoint, IPAddress, pack16
from ztunnel.redirect.enforce import Addresses, Admissions, Affinities, Slots, Verdicts
from ztunnel.redirect.exempt import CgroupRules
from ztunnel.redirect.find import find_neighbours
from ztunnel.redirect.forward import Forwards
from ztunnel.redirect.layout import (
    NUMBER,
    Deny,
    Direct,
    FlowRecord,
    ListenerKind,
    LiveFlow,
    PodFlag,
    Recalled,
    pull_ip,
    pull_live_flow,
    pull_pod,
    pull_record,
    push_listener,
    push_pod,
)
from ztunnel.redirect.observe import HeldCalls, Records, direct_flows, outcomes, outside_calls
from ztunnel.redirect.outside import OutsideCall, pull_outside
from ztunnel.redirect.plan import FORWARD, SK_LOOKUP, Pins
from ztunnel.redirect.recall import Recall
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


class Redirection:
    """The maps and pins of one node, opened by `Redirection.open`."""

    def __init__(self, pins: Pins, maps: dict[str, Map], sk_lookup_fd: int, forward_fd: int = -1) -> None:
        """Takes over the maps and the programs' descriptors."""
        self._maps, self._sk_lookup_fd, self._forward_fd = maps, sk_lookup_fd, forward_fd
        self._links = PodLinks(pins, sk_lookup_fd)
        self.cgroups = CgroupRules(maps)
        self._recall = Recall(maps["callers"])
        self._admissions = Admissions(maps["admitted"])
        self._verdicts = Verdicts(maps)
        self._slots = Slots(maps)
        self.addresses, self.affinities = Addresses(maps), Affinities(maps)
        self._records, self._left = Records(maps["records"]), Records(maps["left"])
        self.forwards = Forwards(pins, maps, forward_fd)
        self.held = HeldCalls(maps, self._recall)

    @classmethod
    def open(cls, pins: Path) -> Redirection:
        """Open what `load.ensure_loaded` has pinned.

        Raises:
            Unsupported: nothing is pinned there.
        """
        places = Pins(pins)
        maps: dict[str, Map] = {}
        try:
            for place in places.maps.iterdir():
                maps[place.name] = Map(bpf.open_pinned(place))
            sk_lookup = bpf.open_pinned(places.programs / SK_LOOKUP.name)
            forward = places.programs / FORWARD.name
            return cls(places, maps, sk_lookup, bpf.open_pinned(forward) if forward.exists() else -1)
        except (OSError, KeyError) as error:
            for opened in maps.values():
                opened.close()
            raise Unsupported(f"no redirection is loaded under {pins}: {error}") from error

    def close(self) -> None:
        """Let go; the kernel goes on redirecting."""
        self._records.close()
        self._left.close()
        self.forwards.close()
        self._links.close()
        self.held.close()
        for opened in self._maps.values():
            opened.close()
        for program in (self._sk_lookup_fd, self._forward_fd):
            if program >= 0:
                bpf.close(program)
        self._sk_lookup_fd = self._forward_fd = -1

    def __enter__(self) -> Redirection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def map_descriptors(self) -> dict[str, int]:
        """The maps by name; they stay ours."""
        return {name: each.fd for name, each in self._maps.items()}

    # Pods.

    def enroll(self, pod: PodNetwork) -> None:
        """Redirect the pod from now on, or with these addresses from now on. Fails closed: where the proxy
        does not listen yet, calls are refused.

        Raises:
            OSError: the kernel refuses; the pod is then not enrolled if it was not before.
        """
        key = NUMBER.pack(pod.cookie)
        fresh = self._maps["enrolled"].get(key) is None
        try:
            self._verdicts.begin(pod.cookie)
            own = [pack16(ip) for ip in pod.addresses] + [
                pack16(ip) for ip, _ in pod.link_local if self.may_own(pod.cookie, ip)
            ]
            for ip in own:
                self._maps["owners"].put(ip, key)
            self._disown_addresses(pod.cookie, frozenset(own))
            # A call that is captured has to find us.
            self._links.attach(pod.cookie, pod.netns.fileno())
            self._maps["enrolled"].put(key, _entry(pod))
            self.forwards.attach(pod.netns, pod.uplinks, pod.forwards)
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
        self._maps["enrolled"].put(key, push_pod(pod.ipv4, pod.ipv6, PodFlag.REFUSED))
        self._verdicts.begin(pod.cookie)
        for ip in pod.addresses:
            with suppress(FileExistsError):  # where the namespace is not the pod's, it is another's
                self._maps["owners"].put(pack16(ip), key, NOEXIST)
        self._links.attach(pod.cookie, pod.netns.fileno())
        self.forwards.attach(pod.netns, pod.uplinks)

    def may_own(self, cookie: int, ip: IPAddress) -> bool:
        """Whether the pod may have this link-local address: two pods on different links may well have the
        same one, and the kernel's program does not see the link. Then it is the first one's, and calls to the
        other's are refused."""
        owner = self._maps["owners"].get(pack16(ip))
        return owner is None or owner == NUMBER.pack(cookie)

    def leave(self, pod: PodNetwork) -> None:
        """Capture no new call of the pod and none to it; those that were captured before still come to its
        listener, until it is withdrawn. Raises OSError, and may be called again."""
        self._maps["enrolled"].put(NUMBER.pack(pod.cookie), push_pod(pod.ipv4, pod.ipv6, PodFlag.LEAVING))
        self.forwards.release(pod.netns)
        self.forwards.detach(pod.cookie)
        self._verdicts.end(pod.cookie)

    def withdraw(self, pod: PodNetwork) -> None:
        """Stop redirecting the pod; connections that live go on. Nothing happens if it is not enrolled."""
        self.withdraw_cookie(pod.cookie)
        self.forwards.release(pod.netns)

    def withdraw_cookie(self, cookie: int) -> None:
        """`withdraw` for a pod of which only the cookie is known, e.g. one that vanished while we were
        away."""
        self._maps["enrolled"].drop(NUMBER.pack(cookie))
        self._links.detach(cookie)
        self.forwards.detach(cookie)
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
        known = self._maps["enrolled"].get(key) == _entry(pod) and all(
            self._maps["owners"].get(pack16(ip)) == key for ip in pod.addresses
        )
        if not known or not self._verdicts.generation(pod.cookie):
            missing.append("pod entry")
            self.enroll(pod)
        if self._links.attach(pod.cookie, pod.netns.fileno()):
            missing.append("pod link")
        if self.forwards.attach(pod.netns, pod.uplinks, pod.forwards):
            missing.append("forward link")
        return missing

    def neighbours(self, pod: PodNetwork) -> list[str]:
        """Programs of others in the pod's namespace that make a difference to us. Raises OSError."""
        ours = {bpf.object_id(self._sk_lookup_fd)}
        return [each.text for each in find_neighbours(pod.netns.fileno(), [SK_LOOKUP], ours)]

    def enrolled(self) -> dict[int, EnrolledPod]:
        """The pods that the kernel redirects now, by cookie."""
        addresses: dict[int, set[IPAddress]] = {}
        for key in self._maps["owners"]:
            owner = self._maps["owners"].get(key)
            if owner:
                addresses.setdefault(NUMBER.unpack(owner)[0], set()).add(pull_ip(key))
        found: dict[int, EnrolledPod] = {}
        for key in self._maps["enrolled"]:
            value = self._maps["enrolled"].get(key)
            if value:
                cookie = NUMBER.unpack(key)[0]
                ipv4, ipv6, flags = pull_pod(value)
                found[cookie] = EnrolledPod(ipv4, ipv6, frozenset(addresses.get(cookie, ())), flags)
        return found

    def _disown_addresses(self, cookie: int, keep: frozenset[bytes]) -> None:
        owners = self._maps["owners"]
        for ip in owners:
            if ip not in keep and owners.get(ip) == NUMBER.pack(cookie):
                owners.drop(ip)

    # Listeners.

    def listener(self, ip: IPAddress, kind: ListenerKind, fd: int) -> None:
        """Captured calls to this address of a pod (OUTBOUND: the pod's own, INBOUND: plaintext from outside)
        go to this listening socket, wherever it is bound, in place of an earlier one. The slot empties by
        itself when the socket closes. Raises OSError."""
        self._maps["listeners"].put(push_listener(ip, kind), NUMBER.pack(fd))

    def listens(self, ip: IPAddress, kind: ListenerKind) -> int:
        """The cookie of the socket that `listener` has given; 0 where there is none any more."""
        found = self._maps["listeners"].get(push_listener(ip, kind))
        return int(NUMBER.unpack(found)[0]) if found else 0

    def no_listener(self, ip: IPAddress, kind: ListenerKind) -> None:
        """Such calls are refused."""
        self._maps["listeners"].drop(push_listener(ip, kind))

    # Each connection.

    def original_destination(self, cookie: int, peer: Endpoint, capture_port: int) -> Recalled | None:
        """See `Recall.original_destination`."""
        return self._recall.original_destination(cookie, peer, capture_port)

    def admit(self, source: Endpoint, destination: Endpoint) -> None:
        """See `Admissions.admit`."""
        self._admissions.admit(source, destination)

    def dismiss(self, source: Endpoint, destination: Endpoint) -> None:
        """See `Admissions.dismiss`."""
        self._admissions.dismiss(source, destination)

    # Verdicts.

    def renew_lease(self, now_ns: int) -> None:
        """See `Verdicts.renew_lease`."""
        self._verdicts.renew_lease(now_ns)

    def end_lease(self) -> None:
        """See `Verdicts.end_lease`."""
        self._verdicts.end_lease()

    def teach(self, source_cookie: int, destination: Endpoint, verdict: Direct | Deny) -> None:
        """See `Verdicts.teach`."""
        self._verdicts.teach(source_cookie, destination, verdict)

    def forget(self, source_cookie: int, destination: Endpoint) -> None:
        """See `Verdicts.forget`."""
        self._verdicts.forget(source_cookie, destination)

    def generation(self, cookie: int) -> int:
        """See `Verdicts.generation`."""
        return self._verdicts.generation(cookie)

    def bump(self, cookie: int) -> int:
        """See `Verdicts.bump`."""
        return self._verdicts.bump(cookie)

    def bump_all(self) -> None:
        """See `Verdicts.bump_all`."""
        self._verdicts.bump_all()

    def serve_vip(
        self, vip: Endpoint, endpoints: Sequence[tuple[Endpoint, int]], affinity_seconds: int = 0
    ) -> None:
        """See `Slots.serve_vip`."""
        self._slots.serve_vip(vip, endpoints, affinity_seconds)

    def drop_vip(self, vip: Endpoint) -> None:
        """See `Slots.drop_vip`."""
        self._slots.drop_vip(vip)

    def drop_vips(self) -> None:
        """See `Slots.drop_vips`."""
        self._slots.drop_vips()

    # What leaves the mesh.

    @property
    def outside_fd(self) -> int:
        """Readable when `outside_records()` has something."""
        return self._left.fd

    def outside_records(self, limit: int = 1024) -> list[OutsideCall]:
        """What calls that leave the mesh report, as `Records.pull` gives it."""
        return [pull_outside(each) for each in self._left.pull(limit)]

    def is_outside(self, socket: int) -> bool:
        """Whether the socket of this cookie is a call that left the mesh, and lives."""
        return self._maps["outside"].get(NUMBER.pack(socket)) is not None

    def outside_calls(self) -> list[OutsideCall]:
        """See `observe.outside_calls`."""
        return outside_calls(self._maps["outside"])

    # Reports.

    @property
    def records_fd(self) -> int:
        """Readable when `records()` has something."""
        return self._records.fd

    def records(self, limit: int = 1024) -> list[FlowRecord]:
        """What direct flows report, as `Records.pull` gives it."""
        return [pull_record(each) for each in self._records.pull(limit)]

    def is_direct(self, socket: int) -> bool:
        """Whether the socket of this cookie is an end of a direct flow that lives."""
        intent = self._maps["intents"].get(NUMBER.pack(socket))
        return intent is not None and pull_live_flow(socket, intent) is not None

    def direct_flows(self) -> list[LiveFlow]:
        """See `observe.direct_flows`."""
        return direct_flows(self._maps)

    def outcomes(self) -> dict[str, int]:
        """See `observe.outcomes`."""
        return outcomes(self._maps["outcomes"])


def _entry(pod: PodNetwork) -> bytes:
    """What the hooks know of an enrolled pod."""
    return push_pod(pod.ipv4, pod.ipv6, PodFlag.FORWARDS if pod.forwards else PodFlag.NONE)
