"""The proxy's decisions as the kernel carries them out: admissions, verdicts, their lease, VIPs' slots, and
which addresses are the mesh's."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence

from ztunnel.kernel.batch import clear, put_all
from ztunnel.kernel.bpf import NOEXIST, Map
from ztunnel.model.address import Endpoint, IPAddress, pack16
from ztunnel.redirect.layout import (
    ADMISSION,
    AFFINITY,
    NUMBER,
    SLOT,
    SMALL,
    VIP,
    AdmissionKind,
    Deny,
    Direct,
    pull_ip,
    push_endpoint,
    push_question,
    push_tuple,
    push_verdict,
)
from ztunnel.redirect.plan import spread

_BY_PROXY = ADMISSION.pack(0, 0, AdmissionKind.BY_PROXY, 0)
_ONLY = SMALL.pack(0)
_NEVER = NUMBER.pack(0)
_YES, _NO = SMALL.pack(1), SMALL.pack(0)


class Admissions:
    """4-tuples that reach the application although they come from outside the pod."""

    def __init__(self, admitted: Map) -> None:
        self._admitted = admitted

    def admit(self, source: Endpoint, destination: Endpoint) -> None:
        """Let our own SYN pass, once bound and before connect. It dies with its connection. Raises
        OSError."""
        self._admitted.put(push_tuple(source, destination), _BY_PROXY)

    def dismiss(self, source: Endpoint, destination: Endpoint) -> None:
        """Take the admission back of a connection that was never dialled."""
        self._admitted.drop(push_tuple(source, destination))

    def has_arrived(self, source: Endpoint, destination: Endpoint) -> bool:
        """Whether the SYN of a connection that does not stand yet has been seen in the pod that it calls."""
        found = self._admitted.get(push_tuple(source, destination))
        return found is not None and bool(ADMISSION.unpack(found)[3])


class TurnedAway:
    """Addresses whose calls of the HBONE port are refused for a while, before the proxy hears of them."""

    def __init__(self, turned_away: Map) -> None:
        self._turned_away = turned_away

    def turn_away(self, source: IPAddress, seconds: float) -> None:
        """From now on and for so long. Raises OSError."""
        until_ns = time.monotonic_ns() + round(seconds * 1e9)
        self._turned_away.put(pack16(source), NUMBER.pack(until_ns))


class Verdicts:
    """The kernel's cache of verdicts, held to be true only while it is confirmed and both ends are
    unchanged."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._verdicts, self._generations, self._lease = (
            maps[name] for name in ("verdicts", "generations", "lease")
        )

    def renew_lease(self, now_ns: int) -> None:
        """Confirm all verdicts; `now_ns` is CLOCK_MONOTONIC. Every 500 ms: after 2 s without, none counts."""
        self._lease.put(_ONLY, NUMBER.pack(now_ns))

    def end_lease(self) -> None:
        """From now on no verdict counts, until the lease is renewed."""
        self._lease.put(_ONLY, _NEVER)

    def teach(self, source_cookie: int, destination: Endpoint, verdict: Direct | Deny) -> None:
        """From now on the kernel answers for calls from this pod to this resolved endpoint. Raises
        OSError."""
        self._verdicts.put(push_question(source_cookie, destination), push_verdict(verdict, destination))

    def forget(self, source_cookie: int, destination: Endpoint) -> None:
        """Ask the proxy again, e.g. because a direct SYN stayed unanswered."""
        self._verdicts.drop(push_question(source_cookie, destination))

    def generation(self, cookie: int) -> int:
        """The pod's generation, to be read before judging; 0 for a pod that is not enrolled."""
        found = self._generations.get(NUMBER.pack(cookie))
        return int(NUMBER.unpack(found)[0]) if found else 0

    def begin(self, cookie: int) -> None:
        """A pod is enrolled: it has a generation from now on."""
        if self.generation(cookie) == 0:
            self.bump(cookie)

    def bump(self, cookie: int) -> int:
        """Void every verdict and unused admission of this pod; its new generation.

        Generations are CLOCK_MONOTONIC in nanoseconds: no pod ever has one that it, or another, had before.
        """
        generation = max(time.monotonic_ns(), self.generation(cookie) + 1)
        self._generations.put(NUMBER.pack(cookie), NUMBER.pack(generation))
        return generation

    def bump_all(self) -> None:
        """Void everything: root policy or trust has changed."""
        for key in self._generations:
            self.bump(NUMBER.unpack(key)[0])

    def end(self, cookie: int) -> None:
        """A pod is withdrawn: nothing that names it counts any more."""
        self._generations.drop(NUMBER.pack(cookie))


class Slots:
    """VIPs and the tables from which the kernel picks an endpoint for each connection."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._vips, self._slots = maps["vips"], maps["slots"]
        self._next_table = max((self._table(key)[0] for key in self._vips), default=0) + 1

    def _table(self, key: bytes) -> tuple[int, int]:
        found = self._vips.get(key)
        table, slots, _ = VIP.unpack(found) if found else (0, 0, 0)
        return int(table), int(slots)

    def serve_vip(
        self, vip: Endpoint, endpoints: Sequence[tuple[Endpoint, int]], affinity_seconds: int = 0
    ) -> None:
        """Let the kernel pick among these endpoints by weight, for a new client or for every call. A new
        table stands before the old one goes.

        Raises:
            OSError: no room; what was there before stays.
        """
        key = push_endpoint(vip)
        chosen = spread(endpoints)
        if not chosen:
            self.drop_vip(vip)
            return
        table, self._next_table = self._next_table, self._next_table + 1
        try:
            for index, endpoint in enumerate(chosen):
                self._slots.put(SLOT.pack(table, index), push_endpoint(endpoint), NOEXIST)
            old = self._table(key)
            self._vips.put(key, VIP.pack(table, len(chosen), affinity_seconds))
        except OSError:
            self._clear(table, len(chosen))
            raise
        self._clear(*old)

    def drop_vip(self, vip: Endpoint) -> None:
        """From now on the proxy picks."""
        key = push_endpoint(vip)
        old = self._table(key)
        self._vips.drop(key)
        self._clear(*old)

    def drop_vips(self) -> None:
        """Forget every VIP, those that a predecessor left included: their endpoints may be others by now."""
        for key in self._vips:
            self._vips.drop(key)
        for key in self._slots:
            self._slots.drop(key)

    def _clear(self, table: int, slots: int) -> None:
        for index in range(slots):
            self._slots.drop(SLOT.pack(table, index))


class Affinities:
    """Which endpoint of a VIP a client keeps: one memory for the kernel's picks and the proxy's, which
    outlives the proxy."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._affinities, self._vips = maps["affinities"], maps["vips"]

    def kept(self, cookie: int, vip: Endpoint, seconds: int, now_ns: int) -> Endpoint | None:
        """The endpoint of this client's last call, if that was no longer ago; it may be none any more."""
        found = self._affinities.get(push_question(cookie, vip))
        if found is None:
            return None
        ip, port, _, used_ns = AFFINITY.unpack(found)
        return Endpoint(pull_ip(ip), port) if now_ns - used_ns < seconds * 1_000_000_000 else None

    def keep(self, cookie: int, vip: Endpoint, endpoint: Endpoint, now_ns: int) -> None:
        """Its call goes to that endpoint, which is one now. Raises OSError."""
        served = self._vips.get(push_endpoint(vip))
        table = VIP.unpack(served)[0] if served else 0
        value = AFFINITY.pack(pack16(endpoint.ip), endpoint.port, table, now_ns)
        self._affinities.put(push_question(cookie, vip), value)


class Addresses:
    """The addresses about which something is to be decided. While they are known, calls to all others are
    left alone; otherwise every call is captured."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._addresses, self._known = maps["mesh_addresses"], maps["mesh_known"]
        self.limit = self._addresses.spec.max_entries

    def tell(self, concerned: Collection[IPAddress], others: Iterable[IPAddress] = ()) -> None:
        """These do concern the mesh, `others` do not any more. Raises OSError: no room, and some of them may
        be missing."""
        put_all(self._addresses, list(map(pack16, concerned)), _YES)
        for ip in others:
            self._addresses.drop(pack16(ip))

    def forget(self) -> None:
        """Know nothing: those of a predecessor may be out of date."""
        self.known(False)
        clear(self._addresses)

    def known(self, known: bool) -> None:
        """Whether all have been told."""
        self._known.put(_ONLY, _YES if known else _NO)
