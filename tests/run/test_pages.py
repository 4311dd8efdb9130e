from __future__ import annotations

import json
import socket
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address

import pytest
import trio

from tests.builders import workload
from tests.run.parts import ANYWHERE, SETTINGS, ask, built, opened, served_by
from ztunnel.control.serve import Server
from ztunnel.errors import ConfigError
from ztunnel.model.address import Endpoint
from ztunnel.run.dump import dump_node
from ztunnel.run.pages import Orders, listen, serve_private, serve_public
from ztunnel.run.reporting import STATE, Reporting
from ztunnel.state.delta import apply

EVERYWHERE = Endpoint(IPv6Address("::"), 0)


@pytest.mark.parametrize("name", ["metrics", "readiness", "admin"])
async def test_a_taken_port_is_named_with_its_variable_and_nothing_stays_open(name):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = Endpoint(IPv4Address("127.0.0.1"), holder.getsockname()[1])
        with pytest.raises(ConfigError) as caught:
            await listen(replace(SETTINGS, **{f"{name}_address": taken}))
    assert str(caught.value) == (
        f"{name} address {taken}: Address already in use: "
        f"stop who listens there, or set ZTUNNEL_{name.upper()}_ADDRESS"
    )


async def test_an_address_that_is_not_ours_is_named():
    foreign = Endpoint(IPv4Address("192.0.2.1"), 0)
    with pytest.raises(ConfigError, match=r"requested address: set ZTUNNEL_ADMIN_ADDRESS$"):
        await listen(replace(SETTINGS, admin_address=foreign))


@pytest.mark.parametrize(("ipv6", "family"), [(True, socket.AF_INET6), (False, socket.AF_INET)])
async def test_everywhere_is_both_families_or_ipv4_alone(ipv6, family):
    with opened(await listen(replace(SETTINGS, metrics_address=EVERYWHERE, ipv6=ipv6))) as listeners:
        assert listeners.metrics.socket.family == family
        async with await trio.open_tcp_stream("127.0.0.1", listeners.metrics.socket.getsockname()[1]):
            pass


async def test_metrics_and_readiness_need_no_node(nursery):
    reporting = Reporting(replace(SETTINGS, metrics_address=ANYWHERE))
    with opened(await listen(SETTINGS)) as listeners:
        nursery.start_soon(serve_public, reporting, listeners)
        assert await ask(listeners.readiness, "GET", "/healthz/ready") == (
            500,
            f"not ready, pending: {STATE}\n",
        )
        reporting.readiness.done(STATE)
        assert await ask(listeners.readiness, "GET", "/healthz/ready") == (200, "ready\n")
        status, text = await ask(listeners.metrics, "GET", "/metrics")
        assert status == 200
        assert "istio_build" in text
        nursery.cancel_scope.cancel()


async def test_the_admin_page_dumps_stops_and_drains(nursery):
    told = []
    with built(served_by(Server())) as (node, _), opened(await listen(SETTINGS)) as listeners:
        nursery.start_soon(
            serve_private,
            node,
            listeners,
            Orders(partial(dump_node, node), lambda: told.append("stop"), lambda: told.append("drain")),
        )
        status, text = await ask(listeners.admin, "GET", "/config_dump")
        assert (status, json.loads(text)["config"]["node"]) == (200, "n1")
        assert "do-not-tell" not in text
        assert (await ask(listeners.admin, "POST", "/drain"))[0] == 200
        assert (await ask(listeners.admin, "POST", "/quitquitquit"))[0] == 200
        assert told == ["drain", "stop"]
        assert (await ask(listeners.admin, "GET", "/quitquitquit"))[0] == 405
        await ask(listeners.admin, "POST", "/logging?level=debug")
        assert str(node.reporting.levels) == "debug"
        nursery.cancel_scope.cancel()


async def test_a_call_is_explained_by_the_world_as_it_is(nursery):
    with built(served_by(Server())) as (node, _), opened(await listen(SETTINGS)) as listeners:
        nursery.start_soon(serve_private, node, listeners, Orders(lambda: dict, print, print))
        web = workload("web").at("10.0.0.9").hbone().on("n2")
        client = workload("client").at("10.0.0.1").hbone().on("n1")
        node.hold.publish(*apply(node.hold.world, [client, web]))
        status, body = await ask(listeners.admin, "GET", "/explain?from=default/client&to=10.0.0.9:80")
        found = json.loads(body)
        assert (status, found["allowed"], found["paths"][0]["way"]) == (200, True, "HBONE")
        assert found["text"].endswith("Allowed: no policy concerns it.")
        status, body = await ask(listeners.admin, "GET", "/explain?from=default/nobody&to=10.0.0.9:80")
        assert (status, body.startswith("no pod 'default/nobody'")) == (404, True)
        assert (await ask(listeners.admin, "GET", "/explain?from=default/client"))[0] == 400
        nursery.cancel_scope.cancel()
