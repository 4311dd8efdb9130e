"""Who is measured."""

from __future__ import annotations

from bench.cells import BARE, ENVOY, OURS, Route, idle_cells
from bench.contestants import MESHED, PLAIN, PROXIED, SERVER_PORTS, STRICT, bare, envoys, ours

ADDRESSES = {
    f"{namespace}/{name}": f"10.0.{number}.{host}"
    for number, namespace in enumerate((MESHED, STRICT, PLAIN, PROXIED))
    for host, name in enumerate(("client", "near", "far", "open"))
}
OF = {one.name: one for one in (ours(ADDRESSES), bare(ADDRESSES), envoys(ADDRESSES))}

IDLE_CELLS = idle_cells(10_000)


def test_with_ours_and_without_a_mesh_the_client_calls_the_server_itself() -> None:
    for name in (OURS, BARE):
        for way in OF[name].ways.values():
            assert (way.host, way.ports) == (ADDRESSES[way.server], SERVER_PORTS)
            assert way.sink == (ADDRESSES[way.server], 5001)


def test_an_envoy_is_called_on_loopback_but_from_outside() -> None:
    hosts = {route: way.host for route, way in OF[ENVOY].ways.items()}
    assert hosts.pop(Route.PLAIN_IN) == ADDRESSES["proxied/far"]
    assert set(hosts.values()) == {"127.0.0.1"}


def test_ours_tunnels_between_nodes_and_where_it_is_told_to() -> None:
    tunnelled = {route for route, way in OF[OURS].ways.items() if way.tunnelled}
    assert tunnelled == {Route.TWO_NODES, Route.SAME_NODE_MTLS}
    assert not any(way.tunnelled for way in OF[BARE].ways.values())


def test_everybody_has_the_same_ways_and_pods_of_its_own() -> None:
    assert OF[OURS].ways.keys() == OF[BARE].ways.keys() == OF[ENVOY].ways.keys()
    assert OF[OURS].ways[Route.PLAIN_IN].client == OF[ENVOY].ways[Route.PLAIN_IN].client == "plain/client"
    assert OF[OURS].ways[Route.PLAIN_OUT].server == OF[ENVOY].ways[Route.PLAIN_OUT].server == "plain/far"
    assert OF[OURS].ways[Route.TWO_NODES].client == "meshed/client"


def test_only_who_has_proxies_competes_in_what_they_weigh() -> None:
    assert not OF[BARE].competes(IDLE_CELLS[0])
    assert ours(ADDRESSES, SimpleProxies()).competes(IDLE_CELLS[0])


class SimpleProxies:
    def pids(self):
        return (), ()

    def restart(self) -> None:
        """Nothing runs."""
