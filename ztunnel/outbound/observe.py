"""Observes the calls that leave the mesh unproxied: an account for each at its caller's end.

The kernel reports when such a call opens and when it ends, each with the bytes so far; in between they are
read from sock_diag every fifteen seconds, so that metrics move while it lives. Either report may be lost, and
after a restart the kernel still remembers every call that lives:

    OPENED ──> account                     a call that failed ──> one line, with the kernel's reason
    ENDED  ──> account closed              not remembered by the kernel twice in a row ──> account closed
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple, Protocol

from ztunnel.errors import HandedOver, Unreachable
from ztunnel.flow.engine import Engine
from ztunnel.flow.timers import Timer
from ztunnel.kernel.sockets import connections
from ztunnel.model.address import Endpoint, IPAddress
from ztunnel.outbound.follow import payload
from ztunnel.outbound.gather import RECORDS, Gatherer, Namespaces
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.redirect.outside import OutsideCall
from ztunnel.redirect.records import RecordEvent, RecordRole
from ztunnel.state.hold import Hold
from ztunnel.telemetry.journey import Journey
from ztunnel.telemetry.labels import Reporter
from ztunnel.telemetry.metrics import Measured
from ztunnel.telemetry.report import Account, Report

POLL_SECONDS = 15.0
_UNSEEN = 2
"""Polls without a call until it counts as gone: at the first, its last report may be under way."""

_WAYS = 1024
"""Journeys that are remembered, one for each pod and destination."""


class Kernel(Protocol):
    """What the kernel holds of such calls (`redirect.attach.Redirection`, which says more of each)."""

    @property
    def outside_fd(self) -> int: ...

    def outside_records(self, limit: int) -> list[OutsideCall]: ...
    def outside_calls(self) -> list[OutsideCall]: ...
    def is_outside(self, socket: int) -> bool: ...
    def outcomes(self) -> dict[str, int]: ...


class _Live(NamedTuple):
    cookie: int
    account: Account
    counts: Measured


class OutsideCalls:
    """All such calls of this node. `pods` are the enrolled ones by uid, kept by `pods/`."""

    def __init__(
        self, engine: Engine, kernel: Kernel, hold: Hold, report: Report, pods: Mapping[str, PodNetwork]
    ) -> None:
        self._engine = engine
        self._kernel = kernel
        self._hold = hold
        self._report = report
        self._pods = pods
        self._live: dict[int, _Live] = {}
        self._unseen: dict[int, int] = {}
        self._world = hold.world
        self._ways: dict[bytes, Journey] = {}
        self._namespaces = Namespaces(pods)
        self._lost = 0
        self._records: Gatherer | None = None
        self._next_poll: Timer | None = None

    def __len__(self) -> int:
        return len(self._live)

    def resume(self) -> None:
        """After a restart: take up the calls that lived on without us."""
        while self.pull():
            pass
        self._take_up()

    def watch(self) -> None:
        """From now on the engine reads reports as they come, and bytes every fifteen seconds."""
        self._records = Gatherer(self._engine, self._kernel.outside_fd, self.pull)
        self._records.watch()
        self._poll_again()

    def hand_over(self) -> None:
        """A successor observes them from now on; here their accounts are closed without a line."""
        records, self._records = self._records, None
        if records is not None:
            records.stop()
        timer, self._next_poll = self._next_poll, None
        if timer is not None:
            timer.cancel()
        for live in self._live.values():
            self._report.close(live.account, HandedOver())
        self._live.clear()
        self._unseen.clear()

    def pull(self) -> int:
        """Read what the kernel has reported, up to a limit. Returns how many reports there were."""
        records = self._kernel.outside_records(RECORDS)
        for record in records:
            if not record.established:
                self._failed(record)
            elif record.event is RecordEvent.OPENED:
                self._opened(record)
            else:
                self._ended(record)
        return len(records)

    def poll(self) -> None:
        """Have the bytes of the calls that live read, one pod at a time within the next fifteen seconds;
        close the accounts of those that are gone without a report."""
        self.pull()
        lost = self._kernel.outcomes().get("outside_lost", 0)
        if lost != self._lost:
            self._lost = lost
            self._take_up()
        calls = defaultdict(list)
        for socket, live in tuple(self._live.items()):
            if self._kernel.is_outside(socket):
                self._unseen.pop(socket, None)
                calls[live.cookie].append(socket)
            else:
                self._miss(socket)
        for number, (cookie, sockets) in enumerate(calls.items()):
            delay = POLL_SECONDS * number / len(calls)
            self._engine.after(delay, partial(self._read, cookie, sockets))

    def _poll_again(self) -> None:
        self._next_poll = self._engine.after(POLL_SECONDS, self._poll_again)
        self.poll()

    def _opened(self, record: OutsideCall) -> None:
        if record.socket not in self._live and record.source is not None:
            counts = Measured()
            account = self._report.open(self._journey(record), record.source, counts)
            self._live[record.socket] = _Live(record.cookie, account, counts)

    def _ended(self, record: OutsideCall) -> None:
        self._opened(record)  # where that report was lost
        live = self._live.get(record.socket)
        if live is not None:
            live.counts.measure(record.sent_bytes, record.received_bytes)
            self._close(record.socket)

    def _close(self, socket: int) -> None:
        self._unseen.pop(socket, None)
        live = self._live.pop(socket, None)
        if live is not None:
            self._report.close(live.account)

    def _failed(self, record: OutsideCall) -> None:
        journey = self._journey(record)
        source = record.source or self._would_be_source(journey, record.destination.ip)
        self._report.refuse(journey, source, Unreachable(_reason(record)))

    def _would_be_source(self, journey: Journey, towards: IPAddress) -> Endpoint:
        own = journey.source_workload.addresses if journey.source_workload else ()
        return Endpoint(next((ip for ip in own if ip.version == towards.version), towards), 0)

    def _take_up(self) -> None:
        for call in self._kernel.outside_calls():
            if call.established:
                self._opened(call)

    def _miss(self, socket: int) -> None:
        self._unseen[socket] = self._unseen.get(socket, 0) + 1
        if self._unseen[socket] >= _UNSEEN:
            self._close(socket)

    def _read(self, cookie: int, sockets: list[int]) -> None:
        network = self._pods.get(self._namespaces.pod_of(cookie))
        if network is None:
            return  # it has left the mesh, and its calls with it: their ends tell
        try:
            found = {each.cookie: each for each in connections(network.netns)}
        except OSError:
            return
        for socket in sockets:
            live, seen = self._live.get(socket), found.get(socket)
            if live is not None and seen is not None:
                live.counts.measure(*payload(seen, RecordRole.CLIENT))

    def _journey(self, record: OutsideCall) -> Journey:
        """By the world as it is now."""
        world = self._hold.world
        if world is not self._world or len(self._ways) >= _WAYS:
            self._world = world
            self._ways.clear()
        journey = self._ways.get(record.way)
        if journey is None:
            destination = record.destination
            journey = self._ways[record.way] = Journey(
                Reporter.SOURCE,
                destination,
                world.workload(self._namespaces.pod_of(record.cookie)),
                world.by_ip(destination.ip),
            )
        return journey


def _reason(record: OutsideCall) -> str:
    """Why a call that leaves the mesh failed."""
    destination = record.destination
    if record.source is None:
        return f"connection failed: {destination}: the pod has no route to it, or no address to call it from"
    if record.error == errno.ETIMEDOUT:
        return f"connection timed out: {destination}"
    if record.error:
        return f"connection failed: {destination}: {os.strerror(record.error)}"
    if record.exact:
        return f"connection failed: {destination}: not answered before the application gave it up"
    return f"connection failed: {destination}: refused, unreachable or not answered"
