"""The parts of a waypoint; `test_waypoint` runs one."""

from __future__ import annotations

import re
import uuid
from random import Random

from tests.builders import workload, world_of
from ztunnel.model.mesh_defaults import MeshDefaults
from ztunnel.model.route_policy import RetryDefault
from ztunnel.run.waypoint_build import _follow_retries, _new_id
from ztunnel.state.delta import apply
from ztunnel.state.hold import Hold
from ztunnel.waypoint.rules.routing import Routers


def test_ids_of_requests_are_uuids_of_version_4() -> None:
    rng = Random(1)
    made = [_new_id(rng).decode() for _ in range(100)]
    assert len(set(made)) == 100
    for each in made:
        assert uuid.UUID(each).version == 4
        assert uuid.UUID(each).variant == uuid.RFC_4122
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", each)


def test_what_is_tried_again_without_routes_is_as_the_mesh_has_it_at_the_moment() -> None:
    off = MeshDefaults(retries=RetryDefault(None))
    hold, routers = Hold(apply(world_of(workload("wp")), [off])[0]), Routers()
    _follow_retries(routers, hold)
    assert routers.unrouted.said == off.retries
    kept = routers.unrouted
    for resources, removed, said in (
        ([MeshDefaults(log_file="/x", retries=RetryDefault(None))], [], off.retries),
        ([MeshDefaults(log_file="/x")], [], None),
    ):
        hold.publish(*apply(hold.world, resources, removed))
        assert routers.unrouted.said == said
        assert (routers.unrouted is kept) == (said is not None)
