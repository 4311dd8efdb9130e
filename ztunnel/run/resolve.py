"""Resolves the names by which a world knows endpoints, and puts the addresses into it.

A ServiceEntry's endpoint may be a name (`resolution: DNS`). What it means is asked of this node's resolver,
of a name again after half a minute (as Envoy's STRICT_DNS without a TTL, which a libc does not tell), sooner
where there was no answer; until there is one, calls to the service are refused. An answer that does not come
keeps the one before.

What a name resolves to is its owner's say, whoever that is. So an address that the mesh knows as somebody
else's, a pod's or a service's, is not called in that name: it would be called in plaintext, past what is
known of it. Nor are addresses that mean another machine to everybody."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

import trio

from ztunnel.errors import PeerError
from ztunnel.model.address import IPAddress, parse_ip
from ztunnel.model.service import ServiceName
from ztunnel.model.workload import Workload
from ztunnel.state.change import Change
from ztunnel.state.delta import apply
from ztunnel.state.hold import Hold
from ztunnel.state.world import World
from ztunnel.xds.resource import Resource

REFRESH_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 10.0
_AT_ONCE: Final = 8
_MOST_ADDRESSES: Final = 64
_SHOWN: Final = 20

Ask = Callable[[str], Awaitable[list[str]]]
"""The addresses of a name, as texts. Raises OSError: there is no answer."""


@dataclass(slots=True)
class _Name:
    """`uids` are the workloads that have it as their address, `answer` what it resolves to, `due` when to ask
    again."""

    uids: set[str]
    due: float
    answer: tuple[IPAddress, ...] = ()
    trouble: str = ""
    asked: bool = False


async def ask_system(name: str) -> list[str]:
    """Ask the resolver that this process has: /etc/hosts, /etc/resolv.conf."""
    found = await trio.socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Names:
    """The names of a world, and their addresses."""

    def __init__(self, hold: Hold, tell: Callable[[str], None], ask: Ask = ask_system) -> None:
        """`tell` is called with what cannot be resolved, a line for each name, whenever that is another."""
        self._hold = hold
        self._tell = tell
        self._told = ""
        self._ask = ask
        self._names: dict[str, _Name] = {}
        self._stale: set[str] = set()
        self._woken = trio.Event()
        hold.subscribe(self._changed)

    def complete(self, one: Resource) -> Resource:
        """A resource that has just come, with the addresses of its name as far as they are known."""
        if isinstance(one, Workload) and one.hostname and not one.addresses:
            known = self._names.get(one.hostname)
            if known is not None and known.answer:
                return replace(one, addresses=known.answer)
        return one

    def _changed(self, _: World, world: World, change: Change) -> None:
        """Note what is named now. A service that is there only now makes its endpoints' names worth
        asking."""
        touched = set(change.workloads)
        for service in change.services:
            touched.update(one.uid for one in world.endpoints(service) if one.hostname)
        if not touched:
            return
        for uid in touched:
            self._note(uid, world.workload(uid), world)
        self._stale |= touched
        self._woken.set()

    def _note(self, uid: str, workload: Workload | None, world: World) -> None:
        wanted = workload.hostname if workload is not None and _is_called(workload, world) else ""
        for name in [name for name, one in self._names.items() if uid in one.uids and name != wanted]:
            self._names[name].uids.discard(uid)
            if not self._names[name].uids:
                del self._names[name]
        if wanted:
            self._names.setdefault(wanted, _Name(set(), -1.0)).uids.add(uid)

    async def run(self) -> None:
        """Resolve until cancelled."""
        limit = trio.CapacityLimiter(_AT_ONCE)
        async with trio.open_nursery() as nursery:
            while True:
                now, stale = trio.current_time(), self._stale
                self._stale = set()
                for one in list(self._names.values()):
                    if one.answer and one.uids & stale:
                        self._put(one)
                for name, one in self._names.items():
                    if one.due <= now and not one.asked:
                        one.asked = True
                        nursery.start_soon(self._resolve, name, one, limit)
                self._report()
                until = min((one.due for one in self._names.values() if not one.asked), default=now + 3600.0)
                with trio.move_on_at(max(until, now)):
                    await self._woken.wait()
                self._woken = trio.Event()

    async def _resolve(self, name: str, one: _Name, limit: trio.CapacityLimiter) -> None:
        async with limit:
            texts, trouble = list[str](), ""
            with trio.move_on_after(_ANSWER_SECONDS) as waiting:
                try:
                    texts = await self._ask(name)
                except (OSError, UnicodeError) as error:
                    trouble = f"cannot be resolved: {error}"
            if waiting.cancelled_caught:
                trouble = f"the resolver does not answer within {_ANSWER_SECONDS:.0f} s"
        answer = tuple(sorted(_addresses(texts), key=lambda ip: (ip.version, ip)))[:_MOST_ADDRESSES]
        usable = tuple(ip for ip in answer if not _is_others(ip, self._hold.world))
        if texts and not usable:
            trouble = f"resolves to {', '.join(map(str, answer)) or texts[0]}, which is somebody else's"
        one.asked, one.trouble = False, trouble
        one.due = trio.current_time() + (RETRY_SECONDS if trouble else REFRESH_SECONDS)
        if self._names.get(name) is one and (texts or not one.answer):
            one.answer = usable
            self._put(one)  # also where there is none: somebody else has the address now
        self._woken.set()

    def _put(self, one: _Name) -> None:
        """Into the world, where that is a change."""
        world = self._hold.world
        upserts = [
            replace(workload, addresses=one.answer)
            for uid in sorted(one.uids)
            if (workload := world.workload(uid)) is not None and workload.addresses != one.answer
        ]
        if upserts:
            self._hold.publish(*apply(world, upserts))

    def _report(self) -> None:
        lines = [f"{name}: {one.trouble}" for name, one in sorted(self._names.items()) if one.trouble]
        more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        text = "\n".join([*lines[:_SHOWN], *more])
        if text != self._told:
            self._told = text
            self._tell(text)


def _is_called(workload: Workload, world: World) -> bool:
    """Whether there is a service through which a workload that is named may be called."""
    if not workload.hostname:
        return False
    found: Iterable[ServiceName] = workload.services
    return any((service := world.service(name)) is not None and service.addresses for name in found)


def _addresses(texts: Iterable[str]) -> set[IPAddress]:
    found = set()
    for text in texts:
        try:
            found.add(parse_ip(text))
        except PeerError:  # with a scope: no machine but this one has it
            continue
    return found


def _is_others(ip: IPAddress, world: World) -> bool:
    if ip.is_loopback or ip.is_unspecified or ip.is_link_local or ip.is_multicast:
        return True
    if world.by_ip(ip) is not None:
        return True
    return any(ip not in service.external for service in world.services_at(ip))
