"""Who is measured: each says which ways are its own, and where a client has to call to go there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from bench.cells import BARE, ENVOY, OURS, Cell, Load, Route

MESHED, STRICT, PLAIN, PROXIED = "meshed", "strict", "plain", "proxied"  # a namespace for each
SERVER_PORTS = (80, 81, 82, 83)
"""All alike: a client has 28,000 ports towards each, and who closes first holds one for a minute. In no row
does the kernel have to look for one that is left."""
SINK_PORT = 5001  # what comes here is read and thrown away
TUNNEL_PORT = 15008  # HBONE, of both ztunnel and Envoy
PLAIN_PORT = 15006  # of the server's Envoy, for plaintext from outside
ENVOY_PORTS = {Route.TWO_NODES: 15001, Route.SAME_NODE: 15002, Route.PLAIN_OUT: 15003}
ENVOY_SINK_PORT = 15004  # these are on loopback of the client's pod


class Proxies(Protocol):
    """The processes of a contestant on the way between two nodes."""

    def pids(self) -> tuple[Sequence[int], Sequence[int]]:
        """Those at the client's end, and those at the server's."""

    def restart(self) -> None:
        """End them, and start others; returns when these run, and perhaps do not serve yet."""


@dataclass(frozen=True, slots=True)
class Way:
    """From the pod `client` to the pod `server`, each `namespace/name`.

    Attributes:
        host, ports: what the client calls; all ports lead to the same.
        sink: where what it sends is thrown away; None where nobody asks for that.
        tunnelled: whether there is to be a tunnel to the server; None: others have tunnels to it, too.
    """

    client: str
    server: str
    host: str
    ports: tuple[int, ...]
    sink: tuple[str, int] | None = None
    tunnelled: bool | None = False


@dataclass(frozen=True, slots=True)
class Contestant:
    """Somebody who carries connections; `proxies` are its processes, None without any."""

    name: str
    ways: Mapping[Route, Way]
    proxies: Proxies | None = None

    def competes(self, cell: Cell) -> bool:
        """Whether it has a way for that, or proxies to look at."""
        if cell.route is Route.PROXIES and cell.load is Load.IDLE:
            return self.proxies is not None
        return cell.route in self.ways


def called_itself(client: str, server: str, addresses: Mapping[str, str], tunnelled: bool = False) -> Way:
    """The client calls the server by its own address."""
    host = addresses[server]
    return Way(client, server, host, SERVER_PORTS, (host, SINK_PORT), tunnelled)


def bare(addresses: Mapping[str, str]) -> Contestant:
    """Without a mesh, given the address of each pod."""
    near, far = (called_itself(f"{PLAIN}/client", f"{PLAIN}/{name}", addresses) for name in ("near", "far"))
    far_away = (Route.TWO_NODES, Route.PLAIN_IN, Route.PLAIN_OUT)
    ways = {**dict.fromkeys(far_away, far), Route.SAME_NODE: near, Route.SAME_NODE_MTLS: near}
    return Contestant(BARE, ways)


def ours(addresses: Mapping[str, str], proxies: Proxies | None = None) -> Contestant:
    """Ztunnel: the client calls the server itself, and is redirected."""

    def way(client: str, server: str, tunnelled: bool = False) -> Way:
        return called_itself(client, server, addresses, tunnelled)

    ways = {
        Route.TWO_NODES: way(f"{MESHED}/client", f"{MESHED}/far", True),
        Route.SAME_NODE: way(f"{MESHED}/client", f"{MESHED}/near"),
        Route.SAME_NODE_MTLS: way(f"{STRICT}/client", f"{STRICT}/near", True),
        Route.PLAIN_IN: way(f"{PLAIN}/client", f"{MESHED}/open"),
        Route.PLAIN_OUT: way(f"{MESHED}/client", f"{PLAIN}/far"),
    }
    return Contestant(OURS, ways, proxies)


def envoys(addresses: Mapping[str, str], proxies: Proxies | None = None) -> Contestant:
    """A pair of Envoys: the client calls the one beside it, on loopback; from outside, the server's."""
    far, near, client = f"{PROXIED}/far", f"{PROXIED}/near", f"{PROXIED}/client"
    loopback = "127.0.0.1"
    beside = Way(client, near, loopback, (ENVOY_PORTS[Route.SAME_NODE],), None, True)
    sink = (loopback, ENVOY_SINK_PORT)
    ways = {
        Route.TWO_NODES: Way(client, far, loopback, (ENVOY_PORTS[Route.TWO_NODES],), sink, True),
        Route.SAME_NODE: beside,
        Route.SAME_NODE_MTLS: beside,
        Route.PLAIN_IN: Way(f"{PLAIN}/client", far, addresses[far], (PLAIN_PORT,), None, None),
        Route.PLAIN_OUT: Way(client, f"{PLAIN}/far", loopback, (ENVOY_PORTS[Route.PLAIN_OUT],)),
    }
    return Contestant(ENVOY, ways, proxies)
