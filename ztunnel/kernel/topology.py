"""What a network namespace may be given and lose, as values: links, addresses, routes. `links` carries them
out."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import NamedTuple

from ztunnel.model.address import IPAddress, IPNetwork


class Bridge(NamedTuple):
    """A new one that forwards at once, with this hardware address, or one of its ports'."""

    name: str
    hardware: str = ""


class Veth(NamedTuple):
    """A new pair: `name` here, `peer` with its hardware address in the namespace at that path."""

    name: str
    peer: str
    namespace: Path
    hardware: str = ""


class Up(NamedTuple):
    """A link is up, as a port of a bridge if that is named."""

    name: str
    bridge: str = ""


class Unlink(NamedTuple):
    """A link goes, and its other end with it."""

    name: str


class Assign(NamedTuple):
    """A new address of a link, to be used at once."""

    name: str
    address: IPv4Interface | IPv6Interface


class Route(NamedTuple):
    """A new route to a network (of no bits: the default) by a link, a gateway or both, from an address of
    ours."""

    to: IPNetwork
    name: str = ""
    via: IPAddress | None = None
    source: IPAddress | None = None


class Unroute(NamedTuple):
    """A route goes."""

    to: IPNetwork
    via: IPAddress


Change = Bridge | Veth | Up | Unlink | Assign | Route | Unroute
