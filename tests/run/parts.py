"""A node proxy of which all parts are real but the redirection, and control planes for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address

import trio

from tests.inbound.parts import Signer
from tests.outbound.parts import Kernel
from tests.redirect.starts import KeptStarts
from ztunnel.config import Settings
from ztunnel.control.serve import Server
from ztunnel.model.address import Endpoint, IPAddress
from ztunnel.run.build import Node, build_node
from ztunnel.run.follow import ControlPlane, Knowledge
from ztunnel.run.pages import Listeners
from ztunnel.run.reporting import Reporting

ANYWHERE = Endpoint(IPv4Address("127.0.0.1"), 0)
SETTINGS = Settings(
    node="n1",
    pod_netns="/run/netns/none-{namespace}-{name}",
    auth_token="do-not-tell",
    metrics_address=ANYWHERE,
    readiness_address=ANYWHERE,
    admin_address=ANYWHERE,
    termination_deadline_seconds=1.0,
)


class Forwards:
    """What no pod forwards."""

    supported = True

    def __init__(self) -> None:
        self.records_fd = os.eventfd(0, os.EFD_NONBLOCK)


class Redirected(Kernel):
    """What a node proxy asks of the redirection beyond that; nothing is enrolled."""

    def __init__(self) -> None:
        super().__init__()
        self.records_fd, self.outside_fd = os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(0, os.EFD_NONBLOCK)
        self.held.fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.forwards, self.starts = Forwards(), KeptStarts()
        self.renewals: list[int] = []
        """Of the lease; 0 where it was ended."""

    def close(self) -> None:
        os.close(self.records_fd)
        os.close(self.outside_fd)
        os.close(self.held.fd)
        os.close(self.forwards.records_fd)

    def enrolled(self) -> dict[int, object]:
        return {}

    def outcomes(self) -> dict[str, int]:
        return {"captured": 3, "allowed": 0}

    def turn_away(self, source: IPAddress, seconds: float) -> None:
        """Nobody calls."""

    def renew_lease(self, now_ns: int) -> None:
        self.renewals.append(now_ns)

    def end_lease(self) -> None:
        self.renewals.append(0)


@contextmanager
def built(plane: ControlPlane, **changes: object) -> Iterator[tuple[Node, Redirected]]:
    """A node; its engine is closed at the end, unless it was run."""
    settings = replace(SETTINGS, **changes)
    redirection = Redirected()
    node = build_node(settings, Knowledge(settings, plane), Reporting(settings), redirection)
    try:
        yield node, redirection
    finally:
        node.engine.close()
        redirection.close()


def served_by(server: Server) -> ControlPlane:
    """A control plane of this process."""
    return ControlPlane(server.session, Signer())


async def until(holds: Callable[[], object]) -> None:
    """Gives the thread to others until something is so; the test's time limit bounds it."""
    while not holds():  # noqa: ASYNC110 (what is waited for knows no Trio events)
        await trio.sleep(0.001)


def lines(node: Node) -> list[str]:
    """What the node said so far and nobody has written yet."""
    return list(node.reporting.writer.buffer.waiting)


async def ask(listener: trio.SocketListener, method: str, path: str) -> tuple[int, str]:
    """Status and body of an answer on that port."""
    port = listener.socket.getsockname()[1]
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(
            f"{method} {path} HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close\r\n\r\n".encode()
        )
        head, _, body = b"".join([part async for part in stream]).partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


@contextmanager
def opened(listeners: Listeners) -> Iterator[Listeners]:
    try:
        yield listeners
    finally:
        listeners.close()
