"""Addresses stay true: the server sees the client, the client sees whom it called."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import product

from ztunnel.demo.claims.claim import Claim, Findings
from ztunnel.demo.claims.shop import Family, Shop
from ztunnel.demo.claims.talk import Answer
from ztunnel.demo.cluster import Pod
from ztunnel.model.address import Endpoint, canonical, parse_endpoint

_FAMILIES: tuple[tuple[str, Family, bool], ...] = (
    ("v4", IPv4Address, False),
    ("v6", IPv6Address, False),
    ("v4-mapped", IPv4Address, True),
)
_PLACES = {"same node": "orders-1", "across": "orders-2"}
_TRIES = 60  # of a VIP, until each place has answered: one endpoint in four is missed by all in 3e-8 of runs
_TIMES = 2  # a call to the same node is made by the proxy at first, then by the kernel


@dataclass(frozen=True, slots=True)
class Called:
    """One answered call, and how it was made."""

    to: Endpoint
    mapped: bool
    answer: Answer
    client: Pod

    def lies(self) -> Iterator[str]:
        """What either end was told that is not so."""
        said = self.answer.said
        family = type(self.to.ip)
        own = self.client.address(family)
        peer = (f"::ffff:{self.to.ip}" if self.mapped else str(self.to.ip), self.to.port)
        if self.answer.peer != peer:
            yield f"getpeername {self.answer.peer}"
        if canonical(ip_address(self.answer.local[0])) != own:
            yield f"getsockname {self.answer.local}"
        if not said or parse_endpoint(said["caller"]).ip != own:
            yield f"the server saw {said.get('caller', self.answer.error)}"


def _measure(shop: Shop, findings: Findings) -> None:
    told, lied = 0, []
    for (name, family, mapped), by_vip in product(_FAMILIES, (True, False)):
        for place, called in _calls(shop, family, mapped, by_vip):
            lies = list(called.lies())
            told += not lies
            lied += [f"{name} {'VIP' if by_vip else 'pod IP'} {place}: {lie}" for lie in lies]
    findings.note(
        f"{told} ways of 12 tell the truth: VIP, pod IP x same node, across x v4, v6, v4-mapped", told == 12
    )
    for lie in lied:
        findings.note(lie, False)


def _calls(shop: Shop, family: Family, mapped: bool, by_vip: bool) -> Iterator[tuple[str, Called]]:
    """The last call that each place answered; nothing for a place that did not."""
    caller = shop.caller("load")
    for place, pod in _PLACES.items():
        last: Called | None = None
        to = shop.vip("orders", family) if by_vip else shop.pod(pod, family)
        answered = 0
        for _ in range(_TRIES):
            answer = caller.call(to, mapped=mapped)
            if answer.error or (answer.said["pod"] == _PLACES["same node"]) == (place == "same node"):
                last, answered = Called(to, mapped, answer, caller.pod), answered + 1
            if answer.error or answered == _TIMES:
                break
        if last is not None:
            yield place, last


CLAIM = Claim(
    3,
    "The server sees the client's address, the client the one it called",
    "getsockname, getpeername and what the server says, of calls made each way",
    _measure,
)
