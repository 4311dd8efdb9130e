"""The parts of a waypoint; `test_waypoint` runs one."""

from __future__ import annotations

import re
import uuid
from random import Random

from ztunnel.run.waypoint_build import _new_id


def test_ids_of_requests_are_uuids_of_version_4() -> None:
    rng = Random(1)
    made = [_new_id(rng).decode() for _ in range(100)]
    assert len(set(made)) == 100
    for each in made:
        assert uuid.UUID(each).version == 4
        assert uuid.UUID(each).variant == uuid.RFC_4122
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", each)
