"""Opens the ports of the node's own pages, and serves them."""

from __future__ import annotations

from functools import partial

import trio

from ztunnel.config import Settings
from ztunnel.errors import ConfigError, Fault
from ztunnel.model.address import Endpoint
from ztunnel.run.build import Node
from ztunnel.run.dump import dump_node
from ztunnel.telemetry.serve import Admin, Scrape, serve_admin, serve_metrics, serve_readiness


async def listen(settings: Settings) -> list[list[trio.SocketListener]]:
    """Listeners for metrics, readiness and admin; all or none."""
    opened: list[list[trio.SocketListener]] = []
    named = (
        ("metrics", settings.metrics_address),
        ("readiness", settings.readiness_address),
        ("admin", settings.admin_address),
    )
    for name, address in named:
        try:
            opened.append(await _open(address))
        except OSError as error:
            raise ConfigError(
                Fault(
                    f"{name} address {address}",
                    0,
                    "",
                    f"{error.strerror or error}: stop who listens there, or set "
                    f"ZTUNNEL_{name.upper()}_ADDRESS",
                )
            ) from error
    return opened


async def _open(address: Endpoint) -> list[trio.SocketListener]:
    family = trio.socket.AF_INET6 if address.ip.version == 6 else trio.socket.AF_INET
    sock = trio.socket.socket(family, trio.socket.SOCK_STREAM)
    sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
    if family == trio.socket.AF_INET6:
        sock.setsockopt(trio.socket.IPPROTO_IPV6, trio.socket.IPV6_V6ONLY, 0)
    await sock.bind((str(address.ip), address.port))
    sock.listen(128)
    return [trio.SocketListener(sock)]


async def serve_pages(node: Node, listeners: list[list[trio.SocketListener]], quit_now: trio.Event) -> None:
    voice = node.voice
    admin = Admin(partial(dump_node, node), voice.levels, quit_now.set, node.pods.stop_accepting)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_metrics, listeners[0], Scrape(voice.metrics, voice.figures), voice.boundary)
        nursery.start_soon(serve_readiness, listeners[1], voice.readiness, voice.boundary)
        nursery.start_soon(serve_admin, listeners[2], admin, voice.boundary)
