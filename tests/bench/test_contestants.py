"""Who is measured."""

from __future__ import annotations

from bench.cells import BARE, ENVOY, OURS, Route
from bench.contestants import contestants

ADDRESSES = {
    "plain/far": "10.0.2.2",
    "plain/near": "10.0.1.3",
    "meshed/far": "10.0.2.9",
    "meshed/near": "10.0.1.9",
}
OF = {one.name: one for one in contestants(ADDRESSES)}


def test_with_ours_and_without_a_mesh_the_client_calls_the_server_itself() -> None:
    assert OF[OURS].targets[Route.TWO_NODES] == ("10.0.2.9", 80)
    assert OF[BARE].targets[Route.SAME_NODE] == ("10.0.1.3", 80)


def test_an_envoy_is_called_on_loopback() -> None:
    assert {host for host, _ in OF[ENVOY].targets.values()} == {"127.0.0.1"}


def test_ours_tunnels_between_nodes_only_and_envoy_always() -> None:
    assert OF[OURS].tunnelled == {Route.TWO_NODES}
    assert OF[BARE].tunnelled == frozenset()
    assert OF[ENVOY].tunnelled == {*Route}


def test_each_has_pods_of_its_own() -> None:
    assert OF[OURS].client == "meshed/client"
    assert OF[ENVOY].client == "proxied/client"
    assert OF[BARE].server(Route.SAME_NODE) == "plain/near"
