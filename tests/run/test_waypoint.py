"""A waypoint from its start to its end, in this process."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from tests.builders import workload
from tests.inbound.parts import Signer
from tests.run.parts import ANYWHERE, SETTINGS, served_by
from ztunnel.config import Settings
from ztunnel.control.serve import Server
from ztunnel.errors import ConfigError, NoCertificate
from ztunnel.run.follow import ControlPlane
from ztunnel.run.reporting import Reporting
from ztunnel.run.stop import Stop
from ztunnel.run.waypoint import run_waypoint
from ztunnel.xds.snapshot import Snapshot, take

WAYPOINT = Settings(
    pod_name="wp-1", pod_namespace="shop", metrics_address=ANYWHERE, readiness_address=ANYWHERE,
    admin_address=ANYWHERE, termination_deadline_seconds=1.0,
)  # fmt: skip


async def test_it_has_to_be_said_which_pod_it_is() -> None:
    with pytest.raises(ConfigError, match="POD_NAME"):
        await run_waypoint(SETTINGS, served_by(Server()), Reporting(SETTINGS), Stop())


async def test_until_it_knows_itself_it_waits_and_can_be_ended(nursery) -> None:
    server = Server()
    await nursery.start(server.run)
    server.publish(take([workload("somebody")], "", Snapshot()))
    reporting, stop = Reporting(WAYPOINT, "waypoint"), Stop()
    with trio.fail_after(4):
        async with trio.open_nursery() as inner:

            async def run() -> None:
                with stop.starting:
                    await run_waypoint(WAYPOINT, served_by(server), reporting, stop)

            inner.start_soon(run)
            while len(waits := reporting.readiness.pending(trio.current_time())) != 2:  # noqa: ASYNC110
                await trio.sleep(0.01)
            stop.ask()
    assert "own pod" in waits
    nursery.cancel_scope.cancel()


async def test_one_that_is_not_given_a_certificate_can_be_ended(nursery) -> None:
    server = Server()
    await nursery.start(server.run)
    own = replace(workload("wp-1").at("127.0.0.1"), uid="Kubernetes//Pod/shop/wp-1", namespace="shop")
    server.publish(take([own], "", Snapshot()))
    reporting, stop = Reporting(WAYPOINT, "waypoint"), Stop()
    signer = Signer()
    signer.error = NoCertificate("not for you")
    plane = ControlPlane(server.session, signer)
    with trio.fail_after(4):
        async with trio.open_nursery() as inner:
            inner.start_soon(run_waypoint, WAYPOINT, plane, reporting, stop)
            while [*reporting.readiness.pending(trio.current_time())] != ["certificate"]:  # noqa: ASYNC110 (no event)
                await trio.sleep(0.01)
            stop.ask()
    nursery.cancel_scope.cancel()
