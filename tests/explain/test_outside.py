"""Calls from outside of the mesh."""

from __future__ import annotations

import pytest

from tests.builders import strict
from tests.explain.test_explanation import FAR, NEAR, OLD, WEB, explained
from ztunnel.explain.path import Way


@pytest.mark.parametrize("source", ["192.0.2.9", "default/old"])
def test_plaintext_into_the_mesh_is_judged_without_an_identity(source: str) -> None:
    found = explained(source, "10.0.1.1:8080", FAR.selected_by(strict()), OLD, strict())
    (path,) = found.paths
    assert (path.way, path.allowed) == (Way.PLAINTEXT, False)
    assert "no identity: the connection is plaintext" in path.reason


def test_a_caller_outside_is_sent_to_the_endpoints_that_are_ready() -> None:
    found = explained("192.0.2.9", "web", WEB, NEAR, FAR.unhealthy(), OLD)
    assert sorted(path.to for path in found.paths) == ["default/near", "default/old"]
    assert [path.reason for path in found.paths if path.to == "default/old"] == ["neither end is in the mesh"]
