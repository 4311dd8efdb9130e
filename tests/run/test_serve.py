"""A node proxy from its start to its end: its parts in this process, and whole ones in a laboratory."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest
import trio

from tests.builders import policy, workload
from tests.kernel.lab import wait_until
from tests.mesh.lab import unique
from tests.run.parts import SETTINGS, served_by, until
from tests.run.running import Live, Planes, ready, running
from ztunnel.control.serve import Server
from ztunnel.demo import run
from ztunnel.demo.operate import Laboratory
from ztunnel.errors import Unsupported
from ztunnel.run.remove import lease_age_seconds
from ztunnel.run.reporting import Reporting
from ztunnel.run.serve import LEASE_SECONDS, run_node
from ztunnel.run.stop import Stop
from ztunnel.xds.snapshot import Snapshot, take


async def test_a_node_is_ready_when_the_world_is_known_and_says_so_once(nursery):
    server = Server()
    await nursery.start(server.run)
    server.publish(take([workload("a"), policy("p")], "", Snapshot()))
    async with running(served_by(server)) as parts:
        await until(lambda: parts.state == ["ready"])
        await until(lambda: parts.said("ready"))
        [line] = parts.said("ready")
        assert "pods=0" in line
        assert "workloads=1" in line
        assert "policies=1" in line
    nursery.cancel_scope.cancel()


async def test_the_lease_is_renewed_until_the_drain_and_not_after_it(autojump_clock):
    planes = Planes()
    async with running(planes.plane, termination_deadline_seconds=10.0) as parts:
        await ready(planes, parts)
        await trio.sleep(10 * LEASE_SECONDS)
        assert 10 <= len(parts.redirection.renewals) <= 12
        flow = Live(parts)
        parts.stop.ask()
        await trio.sleep(8.5)
        assert parts.redirection.renewals[-1] > 0
        assert parts.state[0] == "not ready, pending: draining"
        await trio.sleep(1)
        assert not parts.is_over
        assert parts.redirection.renewals[-1] == 0
        assert parts.redirection.renewals.count(0) == 1
        await trio.sleep(1)
        assert parts.is_over
        assert str(flow.error) == "connection closed due to connection drain"


async def test_a_part_that_raises_ends_the_node_and_its_lease(autojump_clock):
    planes = Planes()

    def broken(idle_seconds: float) -> None:
        raise KeyError("a bug")

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 (what is begun in the block raises there)
        async with running(planes.plane) as parts:
            await ready(planes, parts)
            parts.node.tunnels.retire_idle = broken
            await trio.sleep(20)
    assert caught.group_contains(KeyError, match="a bug")
    assert parts.redirection.renewals[-1] == 0


async def test_a_start_that_fails_closes_the_ports(tmp_path, capfd):
    settings = replace(SETTINGS, pins=tmp_path / "no-bpffs", cache_dir=tmp_path / "cache")
    with pytest.raises(ExceptionGroup) as caught:
        await run_node(settings, Planes().plane, Reporting(settings), Stop())
    assert caught.group_contains(Unsupported)
    assert "starting" in capfd.readouterr().out


# --- whole nodes ---------------------------------------------------------------------

POD = """
apiVersion: v1
kind: Namespace
metadata: {name: t, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: t}
spec: {nodeName: node-1}
"""


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Laboratory]:
    with Laboratory(unique()) as laboratory:
        laboratory.up(POD)
        yield laboratory


@pytest.fixture
def whole(laboratory: Laboratory) -> Iterator[Laboratory]:
    """The proxy runs, before and after the test."""
    yield laboratory
    if not run.processes(laboratory.names.proxy_cgroup("node-1")):
        laboratory.start_node("node-1")


def gone(laboratory: Laboratory) -> bool:
    return not run.processes(laboratory.names.proxy_cgroup("node-1"))


def ended(laboratory: Laboratory) -> None:
    """The proxy has ended by itself, in order."""
    wait_until(lambda: gone(laboratory))
    log = laboratory.node_log("node-1")
    assert "Traceback" not in log
    assert "ended" in log.splitlines()[-1]
    proxies = [child for child in laboratory._children if "--pins" in child.args]
    assert proxies[-1].wait() == 0
    assert lease_age_seconds(laboratory.names.pins("node-1")) > 2


@pytest.mark.root
def test_a_whole_node_says_that_it_starts_and_is_ready(whole):
    log = [line for line in whole.node_log("node-1").splitlines() if "\tztunnel\t" in line]
    assert "starting" in log[0]
    assert 'node="node-1"' in log[0] or "node=node-1" in log[0]
    wait_until(lambda: "pods=1" in whole.node_log("node-1"))
    dump = json.loads(whole.node_get("node-1", "/config_dump"))
    assert "PRIVATE" not in json.dumps(dump)
    assert dump["certificates"][0]["state"] == "Available"
    assert lease_age_seconds(whole.names.pins("node-1")) < 2


@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_whole_node_in_order(whole, number):
    whole.kill_node("node-1", number)
    ended(whole)


@pytest.mark.root
def test_the_admin_page_ends_a_whole_node_in_order(whole):
    whole.node_get("node-1", "/drain", method="POST")
    assert whole.node_get("node-1", "/healthz/ready", 15021).startswith("not ready, pending: draining")
    assert not gone(whole)
    whole.node_get("node-1", "/quitquitquit", method="POST")
    ended(whole)
