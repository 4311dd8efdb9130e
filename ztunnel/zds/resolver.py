"""The name servers of a resolv.conf(5)."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

from ztunnel.model.address import Endpoint

DNS_PORT: Final = 53
_MOST: Final = 3  # MAXNS of resolv.conf(5)


def parse_name_servers(text: str) -> tuple[Endpoint, ...]:
    """In their order, the first three; a line that names none, or one of a link, is passed over."""
    found: list[Endpoint] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and "%" not in words[1]:
            try:
                found.append(Endpoint(ip_address(words[1]), DNS_PORT))
            except ValueError:
                continue
    return tuple(found[:_MOST])
