"""Who is measured: each says which pods are its own, and where the client has to call to go its way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.cells import BARE, ENVOY, OURS, Route

SERVERS = {Route.TWO_NODES: "far", Route.SAME_NODE: "near"}
MESHED, PLAIN, PROXIED = "meshed", "plain", "proxied"  # a namespace for each
SERVER_PORT = 80
TUNNEL_PORT = 15008  # HBONE, of both ztunnel and Envoy
ENVOY_PORTS = {Route.TWO_NODES: 15001, Route.SAME_NODE: 15002}  # on loopback of the client's pod


@dataclass(frozen=True, slots=True)
class Contestant:
    """A way from a client to the servers. `tunnelled` are the routes on which it goes by HBONE."""

    name: str
    namespace: str
    targets: Mapping[Route, tuple[str, int]]
    tunnelled: frozenset[Route]

    @property
    def client(self) -> str:
        """The pod that calls."""
        return f"{self.namespace}/client"

    def server(self, route: Route) -> str:
        """The pod that answers."""
        return f"{self.namespace}/{SERVERS[route]}"


def contestants(addresses: Mapping[str, str]) -> tuple[Contestant, ...]:
    """All of them, ours first, given the address of each pod by `namespace/name`.

    Without a mesh and with ours the client calls the server, Envoy's is called itself.
    """
    called = {
        namespace: {route: (addresses[f"{namespace}/{name}"], SERVER_PORT) for route, name in SERVERS.items()}
        for namespace in (MESHED, PLAIN)
    }
    envoys = {route: ("127.0.0.1", port) for route, port in ENVOY_PORTS.items()}
    return (
        Contestant(OURS, MESHED, called[MESHED], frozenset({Route.TWO_NODES})),
        Contestant(BARE, PLAIN, called[PLAIN], frozenset()),
        Contestant(ENVOY, PROXIED, envoys, frozenset(Route)),
    )
