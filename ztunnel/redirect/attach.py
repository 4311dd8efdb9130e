"""Redirection as a node proxy holds it: pods come and go, connections are recalled, admitted, reported.

Everything is synchronous and takes microseconds, except `enroll`, `withdraw` and `open`. A `Redirection`
belongs to one thread. Closing it changes nothing in the kernel: pinned links go on enforcing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ztunnel.errors import Unsupported
from ztunnel.kernel import bpf
from ztunnel.kernel.bpf import Map
from ztunnel.model.address import Endpoint, IPAddress
from ztunnel.redirect.classify import Starts
from ztunnel.redirect.enforce import Addresses, Admissions, Affinities, Slots, TurnedAway, Verdicts
from ztunnel.redirect.enroll import EnrolledPod, PodEntries, PodNetwork
from ztunnel.redirect.exempt import CgroupRules
from ztunnel.redirect.forward import Forwards
from ztunnel.redirect.layout import NUMBER, QUEUES, Deny, Direct, ListenerKind, Recalled, push_listener
from ztunnel.redirect.observe import HeldCalls, Records, direct_flows, outcomes, outside_calls
from ztunnel.redirect.outside import OutsideCall, pull_outside
from ztunnel.redirect.plan import FORWARD, SK_LOOKUP, Pins
from ztunnel.redirect.recall import Recall
from ztunnel.redirect.records import FlowRecord, LiveFlow, pull_live_flow, pull_record


class Redirection:
    """The maps and pins of one node, opened by `Redirection.open`."""

    def __init__(self, pins: Pins, maps: dict[str, Map], sk_lookup_fd: int, forward_fd: int = -1) -> None:
        """Takes over the maps and the programs' descriptors."""
        self._maps, self._sk_lookup_fd, self._forward_fd = maps, sk_lookup_fd, forward_fd
        self.cgroups, self.starts = CgroupRules(maps), Starts(maps)
        self._recall = Recall(maps["callers"])
        self._admissions = Admissions(maps["admitted"])
        self._turned_away = TurnedAway(maps["turned_away"])
        self._verdicts = Verdicts(maps)
        self._slots = Slots(maps)
        self.addresses, self.affinities = Addresses(maps), Affinities(maps)
        self._records, self._left = Records(maps["records"]), Records(maps["left"])
        self.forwards = Forwards(pins, maps, forward_fd)
        self._pods = PodEntries(pins, maps, sk_lookup_fd, self._verdicts, self.forwards)
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
        self._pods.close()
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
        """See `PodEntries.enroll`."""
        self._pods.enroll(pod)

    def refuse(self, pod: PodNetwork) -> None:
        """See `PodEntries.refuse`."""
        self._pods.refuse(pod)

    def may_own(self, cookie: int, ip: IPAddress) -> bool:
        """See `PodEntries.may_own`."""
        return self._pods.may_own(cookie, ip)

    def leave(self, pod: PodNetwork) -> None:
        """See `PodEntries.leave`."""
        self._pods.leave(pod)

    def withdraw(self, pod: PodNetwork) -> None:
        """See `PodEntries.withdraw`."""
        self._pods.withdraw(pod)

    def withdraw_cookie(self, cookie: int) -> None:
        """See `PodEntries.withdraw_cookie`."""
        self._pods.withdraw_cookie(cookie)

    def look(self, pod: PodNetwork) -> list[str]:
        """See `PodEntries.look`."""
        return self._pods.look(pod)

    def neighbours(self, pod: PodNetwork) -> list[str]:
        """See `PodEntries.neighbours`."""
        return self._pods.neighbours(pod)

    def enrolled(self) -> dict[int, EnrolledPod]:
        """See `PodEntries.enrolled`."""
        return self._pods.enrolled()

    # Listeners.

    def listener(self, ip: IPAddress, kind: ListenerKind, fd: int, queue: int = 0) -> None:
        """Captured calls to this address of a pod (OUTBOUND: the pod's own, INBOUND: plaintext from outside)
        go to this listening socket, wherever it is bound, in place of an earlier one. Of INBOUND each of
        QUEUES may have its own: sources are spread over them, and those of one that has none go to the
        first. The slot empties by itself when the socket closes. Raises OSError."""
        self._maps["listeners"].put(push_listener(ip, kind, queue), NUMBER.pack(fd))

    def listens(self, ip: IPAddress, kind: ListenerKind, queue: int = 0) -> int:
        """The cookie of the socket that `listener` has given; 0 where there is none any more."""
        found = self._maps["listeners"].get(push_listener(ip, kind, queue))
        return int(NUMBER.unpack(found)[0]) if found else 0

    def no_listener(self, ip: IPAddress, kind: ListenerKind) -> None:
        """Such calls are refused."""
        for queue in range(QUEUES):
            self._maps["listeners"].drop(push_listener(ip, kind, queue))

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

    def has_arrived(self, source: Endpoint, destination: Endpoint) -> bool:
        """See `Admissions.has_arrived`."""
        return self._admissions.has_arrived(source, destination)

    def turn_away(self, source: IPAddress, seconds: float) -> None:
        """See `TurnedAway.turn_away`."""
        self._turned_away.turn_away(source, seconds)

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
