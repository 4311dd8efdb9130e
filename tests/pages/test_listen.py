"""Sockets of servers, and why one cannot be had."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address

import pytest
import trio

from ztunnel.errors import ConfigError
from ztunnel.model.address import Endpoint
from ztunnel.pages.listen import listen


async def test_a_taken_port_is_named_with_what_sets_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = Endpoint(IPv4Address("127.0.0.1"), holder.getsockname()[1])
        with pytest.raises(ConfigError, match="stop who listens there, or set PORT_OF_MINE"):
            await listen("mine", taken, "PORT_OF_MINE")


@pytest.mark.parametrize("ipv6", [True, False])
async def test_everywhere_takes_ipv4_as_well(ipv6: bool) -> None:
    listener = await listen("mine", Endpoint(IPv6Address("::"), 0), "X", ipv6)
    async with listener, await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1]):
        assert listener.socket.family == (socket.AF_INET6 if ipv6 else socket.AF_INET)
