"""A control plane over the network, for tests: the server of ours, with a token for everybody."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import trio

from tests.control.standing import now, standing
from ztunnel.ca.secure import ServingTls
from ztunnel.control.answer import PATH, Discovery
from ztunnel.control.connect import Upstream
from ztunnel.control.figures import ControlFigures
from ztunnel.control.serve import Server
from ztunnel.identity.standing import StandingAuthority
from ztunnel.rpc.answer import Peer
from ztunnel.rpc.serve import Handler, Service
from ztunnel.rpc.serve import Server as RpcServer
from ztunnel.rpc.status import Code, RpcError
from ztunnel.telemetry.figures import Figures

TOKEN = "a-token-of-the-test"


class Said:
    """A log that is kept."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, Mapping[str, object]]] = []

    def info(self, message: str, **fields: object) -> None:
        self.lines.append((message, fields))

    warn = error = info


@dataclass(frozen=True)
class Node:
    """Who has the token."""

    account: str = "ztunnel-system/ztunnel"

    def __str__(self) -> str:
        return "the node"


async def authenticate(metadata: Mapping[str, str], peer: Peer) -> Node:
    """Everybody who has the token."""
    if metadata.get("authorization") != f"Bearer {TOKEN}":
        raise RpcError(Code.UNAUTHENTICATED, "who are you?")
    return Node()


@contextmanager
def no_bugs() -> Any:
    yield


@dataclass
class Plane:
    """What runs."""

    server: Server
    authority: StandingAuthority
    tls: ServingTls
    rpc: RpcServer
    port: int
    figures: Figures
    said: Said
    bugs: list[BaseException] = field(default_factory=list)

    def upstream(self, token: str = TOKEN, host: str = "127.0.0.1", **changes: Any) -> Upstream:
        """As a node's settings would name it."""
        assert self.authority.current is not None
        settings = {"roots": self.authority.current.roots_pem, "metadata": (("clusterid", "K"),), **changes}
        return Upstream("XDS", f"https://{host}:{self.port}", token=token, **settings)


@asynccontextmanager
async def control_plane(
    directory: Path,
    methods: Mapping[str, Handler] | None = None,
    names: Sequence[str] = ("127.0.0.1", "istiod.test"),
    host: str = "127.0.0.1",
    **settings: Any,
) -> AsyncIterator[Plane]:
    """Serve until the block is left."""
    server, authority = Server(), standing(directory / "ca")
    figures, said = Figures(), Said()
    control_figures = ControlFigures(figures, "1", lambda: server.sessions)
    server.acknowledged = control_figures.acknowledged
    discovery = Discovery(server, authenticate, control_figures, said)
    tls = ServingTls(authority, names, now)
    rpc = RpcServer(
        Service(
            methods={PATH: discovery.stream, **(methods or {})},
            context=tls.context,
            boundary=no_bugs,
            rng=Random(1),
            **settings,
        )
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        listeners = await trio.open_tcp_listeners(0, host=host)
        await nursery.start(rpc.run, listeners)
        yield Plane(server, authority, tls, rpc, listeners[0].socket.getsockname()[1], figures, said)
        nursery.cancel_scope.cancel()
