"""Endpoints for tests of how they are chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address

from ztunnel.l7.balancing.host import Host
from ztunnel.model.address import Endpoint
from ztunnel.model.workload import Locality, Workload


def endpoint(number: int, v6: bool = False) -> Endpoint:
    return Endpoint(ip_address(f"fd00::{number + 1:x}" if v6 else f"10.0.{number >> 8}.{number & 255}"), 80)


def workload(number: int, **more) -> Workload:
    return Workload(f"k//Pod/shop/web-{number}", f"web-{number}", "shop", **more)


def place(text: str) -> Locality:
    return Locality(*text.split("/")) if text else Locality()


def host(number: int, weight: int = 1, since: float = 0.0) -> Host:
    made = Host(endpoint(number), workload(number), since)
    made.weight = weight
    return made


def hosts(count: int) -> list[Host]:
    return [host(number) for number in range(count)]


def times(count: int, choose: Callable[[], Host]) -> Counter[Host]:
    """How often each was chosen."""
    return Counter(choose() for _ in range(count))
