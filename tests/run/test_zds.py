"""A whole node whose pods come from an agent, in this process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from tests.run.parts import SETTINGS, ask, lines, opened, served_by, until
from tests.zds.agent import Agent, snapshot
from tests.zds.parts import NAMED, WEB, Pod
from ztunnel.config import PodSource
from ztunnel.control.serve import Server
from ztunnel.errors import Unsupported
from ztunnel.model.workload import SameNode
from ztunnel.run.follow import Knowledge, follow
from ztunnel.run.pages import listen, serve_public
from ztunnel.run.reporting import Reporting
from ztunnel.run.stop import Stop
from ztunnel.run.zds import build_agent_node, run_agent_node, run_agent_parts
from ztunnel.xds.snapshot import Snapshot, take

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


async def test_a_node_is_ready_with_the_agents_snapshot_serves_and_drains(tmp_path: Path) -> None:
    settings = replace(SETTINGS, pod_source=PodSource.ZDS, inpod_uds=tmp_path / "a", run_dir=tmp_path)
    server, reporting, stop = Server(), Reporting(settings), Stop()
    knowledge = Knowledge(settings, served_by(server))
    node = build_agent_node(settings, knowledge, reporting)
    with Agent(tmp_path / "a") as agent, Pod() as pod, opened(await listen(settings)) as listeners:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            server.publish(take([WEB], "", Snapshot()))
            nursery.start_soon(follow, settings, reporting, knowledge)
            nursery.start_soon(serve_public, reporting, listeners)

            async def run() -> None:
                await run_agent_parts(node, listeners, stop)
                nursery.cancel_scope.cancel()

            nursery.start_soon(run)
            connected = await trio.to_thread.run_sync(agent.accept)
            status, body = await ask(listeners.readiness, "GET", "/healthz/ready")
            assert (status, body) == (500, "not ready, pending: workload proxy manager\n")
            assert await trio.to_thread.run_sync(connected.name, "u1", NAMED, pod.path) == ""
            assert await trio.to_thread.run_sync(connected.send, snapshot()) == ""
            assert await ask(listeners.readiness, "GET", "/healthz/ready") == (200, "ready\n")
            _, dump = await ask(listeners.admin, "GET", "/config_dump")
            shown = json.loads(dump)
            assert shown["workloadState"][WEB.uid]["state"] == "Up"
            assert shown["workloadState"][WEB.uid]["info"]["serviceAccount"] == WEB.service_account
            _, metrics = await ask(listeners.metrics, "GET", "/metrics")
            assert "workload_manager_active_proxy_count 1.0" in metrics
            assert "ztunnel_zds_connected 1.0" in metrics
            assert "ztunnel_direct_flows" not in metrics
            assert (node.outbound.mesh.direct, node.outbound.mesh.same_node) == (False, SameNode.MTLS)
            status, _ = await ask(listeners.admin, "POST", "/drain")
            await until(lambda: any("draining" in line for line in lines(node)))  # type: ignore[arg-type]
            stop.ask()
        connected.close()


async def test_a_node_that_programs_of_ours_have_captured_is_not_served(tmp_path: Path) -> None:
    pins = tmp_path / "pins"
    pins.mkdir()
    settings = replace(SETTINGS, pod_source=PodSource.ZDS, pins=pins)
    with pytest.raises(Unsupported, match=r"are pinned at .*pins: .*ztunnel clean --pins"):
        await run_agent_node(settings, served_by(Server()), Reporting(settings), Stop())
