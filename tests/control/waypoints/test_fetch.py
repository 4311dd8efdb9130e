"""What is wanted otherwise of a Gateway's objects comes from two ConfigMaps, that of its class first, and is
asked for no more often than it has to be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from tests.control.waypoints.test_deployment import gateway
from tests.kube.fake import FakeServer, answer, status
from ztunnel.control.waypoints.fetch import DEFAULTS_FOR, Parameters
from ztunnel.control.waypoints.overlay import BadOverlay
from ztunnel.kube.failure import ApiFailure
from ztunnel.kube.resource import CONFIG_MAPS
from ztunnel.state.gateway import Gateway, Infrastructure

NAME = ("shop", "wp")
PLAIN = gateway()
NAMING = replace(PLAIN, infrastructure=Infrastructure(parameters="ConfigMap own"))


def put(server: FakeServer, name: str, namespace: str, of_class: str = "", **data: str) -> None:
    labels = {DEFAULTS_FOR: of_class} if of_class else {}
    server.put(
        CONFIG_MAPS, {"metadata": {"name": name, "namespace": namespace, "labels": labels}, "data": data}
    )


@asynccontextmanager
async def fetching(server: FakeServer, namespace: str = "ours") -> AsyncIterator[Parameters]:
    async with server.api() as api:
        yield Parameters(api, namespace)


async def test_those_of_the_class_come_first_and_others_are_not_taken(autojump_clock: object) -> None:
    server = FakeServer(CONFIG_MAPS)
    put(server, "own", "shop", deployment="spec: {replicas: 3}")
    put(server, "z", "ours", PLAIN.class_name, deployment="spec: {replicas: 1}")
    put(server, "y", "ours", PLAIN.class_name, deployment="spec: {replicas: 2}")
    put(server, "x", "ours", "another", deployment="spec: {replicas: 7}")
    put(server, "w", "shop", PLAIN.class_name, deployment="spec: {replicas: 8}")
    of_class, own = ({"deployment": {"spec": {"replicas": count}}} for count in (2, 3))
    async with fetching(server) as it:
        assert await it.overlays(NAME, NAMING) == (of_class, own)
        assert await it.overlays(NAME, PLAIN) == (of_class,)
    async with fetching(server, "") as it:
        assert await it.overlays(NAME, NAMING) == (own,)
        assert await it.overlays(NAME, PLAIN) == ()


async def test_a_change_of_either_is_seen_and_what_cannot_be_asked_is_none(autojump_clock: object) -> None:
    server = FakeServer(CONFIG_MAPS)
    put(server, "own", "shop", deployment="spec: {replicas: 3}")
    async with fetching(server) as it:

        async def changed(one: Gateway = NAMING) -> bool:
            await trio.sleep(5)
            found = await it.changed(NAME, one)
            await it.overlays(NAME, one)
            return found

        assert not await it.changed(NAME, NAMING)  # nobody has seen to it yet
        await it.overlays(NAME, NAMING)
        assert not await changed()
        put(server, "own", "shop", deployment="spec: {replicas: 4}")
        assert await changed()
        put(server, "a", "ours", PLAIN.class_name, deployment="spec: {replicas: 1}")
        assert await changed()
        assert not await changed()
        server.remove(CONFIG_MAPS, "a", "ours")
        assert await changed()
        server.faults.append(lambda _: answer(503, status(503, "ServiceUnavailable", "later")))
        await trio.sleep(5)
        assert not await it.changed(NAME, NAMING)
        with pytest.raises(ApiFailure):
            await it.overlays(NAME, NAMING)
        it.forget(NAME)
        assert not await it.changed(NAME, NAMING)


@pytest.mark.parametrize(
    ("of_class", "own", "why"),
    [
        ("spec: {}", None, "ConfigMap shop/own is not there"),
        ("spec: [", "spec: {}", "ConfigMap ours/d: deployment: line"),
        ("spec: {}", "spec: {hostNetwork: true}", "ConfigMap shop/own: deployment: "),
    ],
)
async def test_what_makes_no_sense_names_its_config_map(of_class: str, own: str | None, why: str) -> None:
    server = FakeServer(CONFIG_MAPS)
    put(server, "d", "ours", PLAIN.class_name, deployment=of_class)
    if own is not None:
        put(server, "own", "shop", deployment=own)
    async with fetching(server) as it:
        with pytest.raises(BadOverlay) as bad:
            await it.overlays(NAME, NAMING)
    assert str(bad.value).startswith(why)


async def test_what_a_class_has_is_asked_for_once_for_all_of_its_gateways(autojump_clock: object) -> None:
    server = FakeServer(CONFIG_MAPS)
    async with fetching(server) as it:
        for number in range(50):
            await it.overlays(("shop", f"wp-{number}"), PLAIN)
        assert len(server.requests) == 1


async def test_a_gateway_may_go_while_its_config_maps_are_looked_at(autojump_clock: object) -> None:
    server = FakeServer(CONFIG_MAPS)
    put(server, "own", "shop", deployment="spec: {replicas: 3}")
    async with fetching(server) as it:
        await it.overlays(NAME, NAMING)
        await trio.sleep(5)
        server.faults.append(lambda _: it.forget(NAME))
        assert not await it.changed(NAME, NAMING)
